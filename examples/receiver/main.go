// Receiver logs Guuru's webhooks. Copy it to start your own service:
//
//	GUURU_SECRET=secr3t go run ./examples/receiver
//
// It stores nothing. To keep every delivery, see examples/inbox.
package main

import (
	"context"
	"flag"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
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
	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{
		Handler:      rc.Handler(http.HandlerFunc(deliver)),
		ReadTimeout:  10 * time.Second,
		WriteTimeout: 20 * time.Second,
		IdleTimeout:  11 * time.Minute, // proxies reuse connections for up to 10
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	go func() {
		if err := server.Serve(listener); err != http.ErrServerClosed {
			log.Fatal(err)
		}
	}()
	slog.Info("listening", "addr", listener.Addr().String())
	<-ctx.Done()
	stop() // a second signal ends the program at once
	if err := server.Shutdown(context.Background()); err != nil {
		log.Fatal(err)
	}
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
		// The signature covers the status, but not the event's name.
		slog.Info(event, "user", p.User.Name, "question", p.Question,
			"status", p.Status, "rating", p.Rating)
	default:
		slog.Info("ignored", "event", event)
	}
	io.WriteString(w, "Success!")
}
