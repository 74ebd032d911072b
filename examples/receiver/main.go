// Receiver logs Guuru's webhooks. Start your own service from it:
//
//	GUURU_SECRET=secr3t go run ./examples/receiver
//
// It stores nothing. To keep every delivery, see examples/inbox.
package main

import (
	"flag"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"example.com/hmacverify"
)

func main() {
	addr := flag.String("addr", ":8000", "listen on this `host:port`")
	flag.Parse()
	if flag.NArg() > 0 {
		log.Fatalf("unexpected argument %q", flag.Arg(0))
	}
	rc, err := hmacverify.New(os.Getenv("GUURU_SECRET"))
	if err != nil {
		log.Fatalf("GUURU_SECRET: %v", err)
	}
	rc.ErrorHandler = func(w http.ResponseWriter, r *http.Request, err error) {
		slog.Warn("rejected", "from", r.RemoteAddr, "err", err)
		hmacverify.DefaultErrorHandler(w, r, err)
	}
	mux := http.NewServeMux()
	mux.Handle("/", rc.Handler(http.HandlerFunc(deliver)))

	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	slog.Info("listening", "addr", listener.Addr().String())
	server := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      20 * time.Second,
	}
	log.Fatal(server.Serve(listener))
}

// deliver receives only requests with a valid signature.
func deliver(w http.ResponseWriter, r *http.Request) {
	switch event := r.Header.Get(hmacverify.EventHeader); event {
	case hmacverify.EventChatRated:
		p, err := hmacverify.PayloadFrom(r.Context())
		if err != nil {
			slog.Error("payload not decoded", "event", event, "err", err,
				"signature", r.Header.Get(hmacverify.SignatureHeader))
			http.Error(w, "payload not decoded", http.StatusInternalServerError)
			return
		}
		slog.Info(event, "user", p.User.Name, "question", p.Question, "rating", p.Rating)
	default:
		slog.Info("ignored", "event", event)
	}
	io.WriteString(w, "Success!")
}
