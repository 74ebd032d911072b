// Receiver logs ratings from Guuru. Copy it to start your own service:
//
//	GUURU_SECRET=secr3t go run ./examples/receiver
//
// It stores nothing: see examples/inbox. Its log has personal data. To rotate the
// secret, also set GUURU_SECRET_PREVIOUS. On SIGTERM, give it 15 seconds.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
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
	addr := flag.String("addr", ":"+cmp.Or(os.Getenv("PORT"), "8000"), "listen on this `host:port`")
	flag.Parse()
	if flag.NArg() > 0 {
		log.Fatalf("unexpected argument %q", flag.Arg(0))
	}
	secrets := []string{os.Getenv("GUURU_SECRET")}
	if previous := os.Getenv("GUURU_SECRET_PREVIOUS"); previous != "" {
		secrets = append(secrets, previous)
	}
	rc, err := hmacverify.New(secrets...)
	if err != nil {
		log.Fatalf("GUURU_SECRET, GUURU_SECRET_PREVIOUS: %v", err)
	}
	serve(*addr, rc.Handler(http.HandlerFunc(deliver)))
}

// deliver receives only requests with a valid signature.
func deliver(w http.ResponseWriter, r *http.Request) {
	switch event := r.Header.Get(hmacverify.EventHeader); event {
	case hmacverify.EventChatRated:
		p, err := hmacverify.PayloadFrom(r.Context())
		if err != nil { // unless it is ErrNoPayload, keep r.Body: it may not come again
			slog.Error("payload not decoded", "event", event, "err", err)
			http.Error(w, "payload not decoded", http.StatusInternalServerError)
			return
		}
		if p.Status != "rated" { // the event is not signed: it may be another one's body
			slog.Warn("ignored", "event", event, "status", p.Status)
			break
		}
		slog.Info(event, "user", p.User.Name, "question", p.Question, "rating", p.Rating)
	default:
		slog.Info("ignored", "event", fmt.Sprintf("%.100s", event)) // not signed, maybe long
	}
	io.WriteString(w, "Success!")
}

// serve returns after a signal, once all requests have a response.
func serve(addr string, handler http.Handler) {
	signal.Ignore(syscall.SIGPIPE) // if the log's reader is gone, go on without it
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // nohup ignores it
		ctx, _ = signal.NotifyContext(ctx, syscall.SIGHUP) // a closed terminal may send two
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		log.Fatalf("-addr or PORT: %v", err)
	}
	server := &http.Server{
		Handler:      handler,
		ReadTimeout:  10 * time.Second,
		WriteTimeout: 15 * time.Second, // includes reading the body
		IdleTimeout:  11 * time.Minute, // proxies reuse connections for up to 10 minutes
	}
	go func() {
		if err := server.Serve(listener); err != http.ErrServerClosed {
			log.Fatal(err)
		}
	}()
	slog.Info("listening", "addr", listener.Addr().String())
	<-ctx.Done()
	stop() // a second signal ends the program at once
	slog.Info("shutting down")
	server.Shutdown(context.Background())
}
