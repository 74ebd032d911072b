// Package service is what the example programs that listen have in common: a receiver
// with the secrets of the environment, and a server that is fit for the open internet.
// To copy one of the programs, take this file with it.
package service

import (
	"context"
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

// Receiver returns a receiver that accepts what is signed with GUURU_SECRET of the
// environment or, if that is set, with GUURU_SECRET_PREVIOUS: see "Changing the secret"
// in the README. It logs what it refuses. Without GUURU_SECRET, the program ends.
func Receiver() *hmacverify.Receiver {
	secrets := []string{os.Getenv("GUURU_SECRET")}
	if secrets[0] == "" {
		log.Fatal("GUURU_SECRET is not set")
	}
	if previous := os.Getenv("GUURU_SECRET_PREVIOUS"); previous != "" {
		secrets = append(secrets, previous)
	}
	rc, err := hmacverify.New(secrets...)
	if err != nil {
		log.Fatal(err)
	}
	rc.ErrorHandler = func(w http.ResponseWriter, r *http.Request, err error) {
		slog.Warn("refused", "from", r.RemoteAddr, "method", r.Method, "path", r.URL.Path, "err", err)
		hmacverify.DefaultErrorHandler(w, r, err)
	}
	return rc
}

// Answer tells the sender that the delivery was taken, or with 500 that it was not and
// should be sent again.
func Answer(w http.ResponseWriter, err error) {
	if err != nil {
		slog.Error("delivery not taken", "err", err)
		http.Error(w, "Delivery not taken", http.StatusInternalServerError)
		return
	}
	io.WriteString(w, "Success!")
}

// Serve answers requests on addr with handler. On SIGINT and SIGTERM it takes no more
// of them, finishes those under way, and returns. If it cannot serve, or the requests
// under way take more than a minute, the program ends.
func Serve(addr string, handler http.Handler) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second, // header and body
		WriteTimeout:      40 * time.Second, // from the header's end: body, handler and answer
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
	slog.Info("listening", "addr", listener.Addr().String())
	shutdown := make(chan error, 1)
	context.AfterFunc(ctx, func() {
		stop() // a second signal ends the program at once
		slog.Info("shutting down")
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		shutdown <- server.Shutdown(ctx)
	})
	if err := server.Serve(listener); err != http.ErrServerClosed {
		log.Fatal(err)
	}
	if err := <-shutdown; err != nil {
		log.Fatal(err)
	}
}
