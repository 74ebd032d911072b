// Gateway verifies deliveries for a backend in any language. It posts those
// whose signature is valid to one URL, and rejects all other requests:
//
//	GUURU_SECRET=secr3t go run ./examples/gateway -upstream http://localhost:9000/guuru
//
// Nothing else may reach the backend: have it listen on localhost. It receives
// the body and the headers Content-Type, Idempotency-Key, and X-Guuru-*. Do not
// trust the headers, which are not signed.
//
// To rotate the secret, set GUURU_SECRET_PREVIOUS to the previous one.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"example.com/hmacverify"
)

func main() {
	addr := flag.String("addr", ":8000", "listen on this `host:port`")
	upstream := flag.String("upstream", "", "post deliveries to this `URL`")
	flag.Parse()
	if flag.NArg() > 0 {
		log.Fatalf("unexpected argument %q", flag.Arg(0))
	}
	target, err := url.Parse(*upstream)
	if err != nil || target.Host == "" || target.Scheme != "http" && target.Scheme != "https" {
		log.Fatal("-upstream is not a URL like http://localhost:9000/guuru")
	}
	if target.User != nil {
		log.Fatal("-upstream has a user or password, which is not supported")
	}
	rc, err := newReceiver()
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	if err := serve(listener, rc.Handler(newProxy(target))); err != nil {
		log.Fatal(err)
	}
}

// newReceiver returns a Receiver that logs what it rejects.
func newReceiver() (*hmacverify.Receiver, error) {
	secrets := []string{os.Getenv("GUURU_SECRET")}
	if previous := os.Getenv("GUURU_SECRET_PREVIOUS"); previous != "" {
		secrets = append(secrets, previous)
	}
	rc, err := hmacverify.New(secrets...)
	if err != nil {
		return nil, fmt.Errorf("GUURU_SECRET: %w", err)
	}
	rc.ErrorHandler = func(w http.ResponseWriter, r *http.Request, err error) {
		slog.Warn("rejected", "from", r.RemoteAddr, "err", err)
		hmacverify.DefaultErrorHandler(w, r, err)
	}
	return rc, nil
}

// newProxy returns a handler that posts each delivery to target and passes the
// response back. It responds with 502 if target does not respond.
func newProxy(target *url.URL) http.Handler {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableCompression = true // otherwise adds Accept-Encoding
	transport.ResponseHeaderTimeout = 30 * time.Second
	return &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL, r.Out.Host = target, target.Host
			r.Out.Header, r.Out.Trailer = make(http.Header), nil
			for name, values := range r.In.Header {
				if isDelivered(name) {
					r.Out.Header[name] = values
				}
			}
			// The body is in memory. With GetBody, the transport can send the
			// request again if the backend closes the connection. The backend
			// may then receive it twice.
			body, _ := io.ReadAll(r.In.Body)
			logPrevious(body, r.In.Header.Get(hmacverify.SignatureHeader))
			r.Out.GetBody = func() (io.ReadCloser, error) {
				return io.NopCloser(bytes.NewReader(body)), nil
			}
			r.Out.Body, _ = r.Out.GetBody()
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			slog.Error("not delivered", "err", err,
				"signature", r.Header.Get(hmacverify.SignatureHeader))
			w.WriteHeader(http.StatusBadGateway)
		},
	}
}

// logPrevious logs a delivery that the new secret did not sign, so that you can
// see whether the previous one is still in use.
func logPrevious(body []byte, sig string) {
	if os.Getenv("GUURU_SECRET_PREVIOUS") == "" {
		return
	}
	if hmacverify.Verify(os.Getenv("GUURU_SECRET"), body, sig) != nil {
		slog.Info("signed with the previous secret")
	}
}

// isDelivered reports whether to pass a header on. Many backends read
// X-Guuru-Hmac_Sha256 as X-Guuru-Hmac-Sha256, so underscores do not pass.
func isDelivered(name string) bool {
	return name == "Content-Type" || name == hmacverify.IdempotencyKeyHeader ||
		strings.HasPrefix(name, "X-Guuru-") && !strings.Contains(name, "_")
}

// serve handles requests until SIGINT or SIGTERM. It then finishes those in
// progress, for up to a minute. A second signal ends the program at once.
func serve(listener net.Listener, handler http.Handler) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      40 * time.Second, // 10 s for the body and 30 s for the backend
		MaxHeaderBytes:    16 << 10,
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	slog.Info("listening", "addr", listener.Addr().String())
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	stop()
	slog.Info("shutting down")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return server.Shutdown(ctx)
}
