// Package integration tests the README's code with real routers and PostgreSQL,
// and a receiver behind nginx.
package integration

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/hmacverify"
)

const secret = "secr3t"

func TestMain(m *testing.M) {
	if url := os.Getenv("DATABASE"); url != "" {
		serveInbox(url)
	}
	os.Exit(m.Run())
}

func newReceiver(tb testing.TB) *hmacverify.Receiver {
	tb.Helper()
	rc, err := hmacverify.New(secret)
	if err != nil {
		tb.Fatal(err)
	}
	return rc
}

// newRequest returns an unsigned request with body.
func newRequest(tb testing.TB, url, body string) *http.Request {
	tb.Helper()
	r, err := http.NewRequest("POST", url, strings.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Guuru-Event", "chat-rated")
	return r
}

// documented returns the nth of the documented bodies and its signature.
func documented(tb testing.TB, n string) (body, sig string) {
	tb.Helper()
	return read(tb, "testdata/example"+n+".json"), read(tb, "testdata/example"+n+".sig")
}

// read returns a file of the repository.
func read(tb testing.TB, name string) string {
	tb.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(name)))
	if err != nil {
		tb.Fatal(err)
	}
	return string(text)
}

// freePort returns an address of localhost that nothing listens on.
func freePort(tb testing.TB) (host, port string) {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer listener.Close()
	host, port, err = net.SplitHostPort(listener.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	return host, port
}

// do sends r and returns the response's status and text.
func do(tb testing.TB, r *http.Request) string {
	tb.Helper()
	response, err := try(r)
	if err != nil {
		tb.Fatal(err)
	}
	return response
}

func try(r *http.Request) (string, error) {
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return fmt.Sprintf("%d %s", resp.StatusCode, text), err
}
