// Receiver prints Guuru's webhooks, a JSON line for each delivery, so that a program
// can read them from standard output:
//
//	GUURU_SECRET=secr3t go run ./examples/receiver | jq .payload.question
//
// It is the place to begin a service of your own. What it logs is on standard error.
package main

import (
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"os"

	"example.com/hmacverify"
	"example.com/hmacverify/examples/internal/service"
)

func main() {
	addr := flag.String("addr", ":8000", "listen on this `host:port`")
	flag.Parse()

	rc := service.Receiver()
	service.Serve(*addr, rc.Handler(http.HandlerFunc(printDelivery)))
}

// A delivery is what is printed: the payload as it came, with every field.
type delivery struct {
	Event          string          `json:"event"`
	IdempotencyKey string          `json:"idempotencyKey"`
	Payload        json.RawMessage `json:"payload"`
}

// printDelivery gets authentic requests only. It answers 500 to what it cannot print,
// so that the sender knows that the delivery was not taken.
func printDelivery(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err == nil {
		// Encode writes once, and a write to a file is whole: the lines of deliveries
		// that come at the same time do not mix.
		err = json.NewEncoder(os.Stdout).Encode(delivery{
			Event:          r.Header.Get(hmacverify.EventHeader),
			IdempotencyKey: r.Header.Get(hmacverify.IdempotencyKeyHeader),
			Payload:        body,
		})
	}
	service.Answer(w, err)
}
