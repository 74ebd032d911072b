// Gateway verifies deliveries for a backend in any language. It posts those
// whose signature is valid to one URL, and rejects all other requests:
//
//	GUURU_SECRET=secr3t go run ./examples/gateway -upstream http://localhost:9000/guuru
//
// Nothing else may reach the backend: have it listen on localhost. It receives
// the body and the headers Content-Type, Idempotency-Key, and X-Guuru-*, which
// are not signed. Without a usable response from it, Guuru gets 502. To rotate
// the secret, also set GUURU_SECRET_PREVIOUS. On SIGTERM it finishes requests in
// progress: give a container 45 seconds to stop.
package main

import (
	"bytes"
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"

	"example.com/hmacverify"
)

func main() {
	addr := flag.String("addr", ":"+cmp.Or(os.Getenv("PORT"), "8000"), "listen on this `host:port`")
	upstream := flag.String("upstream", "", "post deliveries to this `URL`")
	flag.Parse()
	if flag.NArg() > 0 {
		log.Fatalf("unexpected argument %q", flag.Arg(0))
	}
	u, err := url.Parse(*upstream)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "http" && u.Scheme != "https" {
		log.Fatal("-upstream is not a URL like http://localhost:9000/guuru, without a password")
	}
	if _, err := net.LookupPort("tcp", u.Port()); err != nil {
		log.Fatalf("-upstream is not a URL like http://localhost:9000/guuru: %v", err)
	}
	secrets := []string{os.Getenv("GUURU_SECRET")}
	if previous := os.Getenv("GUURU_SECRET_PREVIOUS"); previous != "" {
		secrets = append(secrets, previous)
	}
	rc, err := hmacverify.New(secrets...)
	if err != nil {
		log.Fatalf("GUURU_SECRET, GUURU_SECRET_PREVIOUS: %v", err)
	}
	serve(*addr, rc.Handler(http.HandlerFunc(gateway{secrets[0], *upstream}.deliver)))
}

const maxResponseBytes = 1 << 20

type gateway struct{ secret, upstream string }

// deliver receives only requests with a valid signature.
func (g gateway) deliver(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body) // from memory, so there is no error
	sig := r.Header.Get(hmacverify.SignatureHeader)
	logger := slog.With("id", hmacverify.DeliveryID(r.Header.Get(hmacverify.EventHeader), sig))
	if hmacverify.Verify(g.secret, body, sig) != nil {
		logger = logger.With("note", "signed with the previous secret")
	}
	resp, text, err := g.post(r, body) // even if the sender disconnects
	if err != nil || len(text) > maxResponseBytes {
		logger.Error("no usable response", "status", 502, "bytes", len(text), "err", err)
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	level := slog.LevelInfo
	if resp.StatusCode > 299 {
		level = slog.LevelWarn
	}
	logger.Log(r.Context(), level, "backend responded", "status", resp.StatusCode)
	w.Header()["Content-Type"] = resp.Header["Content-Type"] // nil: do not guess one
	w.WriteHeader(resp.StatusCode)
	w.Write(text)
}

// passes matches the names of headers that the backend receives. No lookalike may
// pass: PHP would read X-Guuru-Hmac.Sha256 as the signature header.
var passes = regexp.MustCompile(`^(Content-Type|Idempotency-Key|X-Guuru-[A-Za-z0-9-]+)$`)

// transport sends each delivery once, on a new connection. If the backend closed
// a reused one just then, net/http would fail or send several copies.
var transport = &http.Transport{ // without Proxy; compression would add Accept-Encoding
	DisableKeepAlives: true, DisableCompression: true, TLSHandshakeTimeout: 10 * time.Second,
	DialContext:            (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
	MaxResponseHeaderBytes: 16 << 10, // errors may quote as much
}

func (g gateway) post(r *http.Request, body []byte) (*http.Response, []byte, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), 30*time.Second)
	defer cancel()
	out, _ := http.NewRequestWithContext(ctx, "POST", g.upstream, bytes.NewReader(body))
	out.Header = r.Header.Clone()
	maps.DeleteFunc(out.Header, func(k string, _ []string) bool { return !passes.MatchString(k) })
	out.Header.Set("User-Agent", "")      // not net/http's
	resp, err := transport.RoundTrip(out) // no redirects, and no URL in errors
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 { // the body of a 101 has no end
		return nil, nil, fmt.Errorf("unexpected status %d", resp.StatusCode)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxResponseBytes+1))
	return resp, text, err
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
		WriteTimeout: 45 * time.Second, // 10 for the body, 30 for the backend, 5 to respond
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
