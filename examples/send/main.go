// Send signs files and posts them to a receiver, as Guuru would: a test of one's own
// endpoint that does not wait for a chat.
//
//	GUURU_SECRET=secr3t go run ./examples/send -url http://localhost:8000 testdata/*.json
//
// The file - is standard input. Send prints each file with the status and the
// beginning of the answer, and exits with 1 if any answer is not 2xx.
package main

import (
	"bytes"
	"crypto/rand"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"time"

	"example.com/hmacverify"
)

func main() {
	url := flag.String("url", "http://localhost:8000", "post to this `URL`")
	event := flag.String("event", hmacverify.EventChatRated, "send this X-Guuru-Event")
	flag.Parse()

	secret := os.Getenv("GUURU_SECRET")
	if secret == "" {
		log.Fatal("GUURU_SECRET is not set")
	}
	if flag.NArg() == 0 {
		log.Fatal("no file to send")
	}
	status := 0
	for _, file := range flag.Args() {
		answer, ok := send(*url, secret, *event, file)
		fmt.Println(file, answer)
		if !ok {
			status = 1
		}
	}
	os.Exit(status)
}

// client does not follow redirects: Guuru may not, and to most of them a client sends
// a GET.
var client = http.Client{
	Timeout:       30 * time.Second,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// send posts file, and tells what came of it and whether it is a success.
func send(url, secret, event, file string) (answer string, ok bool) {
	body, err := read(file)
	if err != nil {
		return err.Error(), false
	}
	r, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err.Error(), false
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set(hmacverify.EventHeader, event)
	r.Header.Set(hmacverify.IdempotencyKeyHeader, rand.Text())
	r.Header.Set(hmacverify.SignatureHeader, hmacverify.Sign(secret, body))
	resp, err := client.Do(r)
	if err != nil {
		return err.Error(), false
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 200))
	if err != nil {
		return err.Error(), false
	}
	return fmt.Sprintf("%d %q", resp.StatusCode, text), resp.StatusCode/100 == 2
}

func read(file string) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(os.Stdin)
	}
	return os.ReadFile(file)
}
