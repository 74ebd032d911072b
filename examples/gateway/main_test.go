package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"reflect"
	"strings"
	"testing"

	"example.com/hmacverify/examples/internal/program"
)

// The test's own binary is the backend too, in a process of its own.
func TestMain(m *testing.M) {
	if os.Getenv("BACKEND") != "" {
		backend()
		return
	}
	program.Main(m)
}

// A received is what the backend got.
type received struct {
	Method, Host, URI, Body string
	Header                  http.Header
	ContentLength           int64
	TransferEncoding        []string
}

// backend prints each request, and answers it with its number.
func backend() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	slog.Info("listening", "addr", listener.Addr().String())
	n := 0
	panic(http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(err)
		}
		json.NewEncoder(os.Stdout).Encode(received{r.Method, r.Host, r.RequestURI, string(body), r.Header, r.ContentLength, r.TransferEncoding})
		n++
		w.Header().Set("X-Backend", "here")
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprintf(w, "taken: %d", n)
	})))
}

const secret = "GUURU_SECRET=secr3t"

// send writes request, and returns the answer's status, X-Backend header and text.
func send(t *testing.T, addr, request string) string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, request)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d %s %s", resp.StatusCode, resp.Header.Get("X-Backend"), text)
}

func TestGateway(t *testing.T) {
	back := program.StartFile(t, os.Args[0], []string{"BACKEND=1"})
	gateway := program.Start(t, []string{secret}, "-upstream", back.URL)
	body, sig := program.Example(t, 2)
	header := "Host: chats.example.com\r\n" +
		"Content-Type: application/json\r\n" +
		"X-Guuru-Event: chat-rated\r\n" +
		"Idempotency-Key: a key\r\n" +
		"X-Guuru-Hmac-Sha256: " + sig + "\r\n" +
		"Forwarded: for=192.0.2.1\r\n" +
		"X-Forwarded-For: 192.0.2.1\r\n" +
		"X-Forwarded-Host: chats.example.com\r\n" +
		"X-Forwarded-Proto: https\r\n"
	length := fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)
	chunked := fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n5\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n", body[:5], len(body)-5, body[5:])

	const uri = "/a%2Fb//c?x=1;y=%zz"
	taken := 0
	for _, tc := range []struct{ name, request, want string }{
		{"length", "POST " + uri + " HTTP/1.1\r\n" + header + length, "202 here taken: 1"},
		{"chunks", "POST " + uri + " HTTP/1.1\r\n" + header + chunked, "202 here taken: 2"},
		{"forged", "POST / HTTP/1.1\r\n" + header + strings.ToUpper(length), "400  Invalid request, non-matching HMAC-SHA256 received"},
		{"unsigned", "POST / HTTP/1.1\r\nHost: chats.example.com\r\n" + length, "400  Invalid request, non-matching HMAC-SHA256 received"},
		{"GET", "GET / HTTP/1.1\r\n" + header + "\r\n", "405  Invalid request, method is not POST"},
		{"length again", "POST " + uri + " HTTP/1.1\r\n" + header + length, "202 here taken: 3"},
	} {
		if got := send(t, gateway.Addr, tc.request); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
		if !strings.HasPrefix(tc.want, "202") {
			continue
		}
		taken++
		line, err := back.Stdout.ReadBytes('\n')
		if err != nil {
			t.Fatal(err)
		}
		var got received
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatal(err)
		}
		want := received{
			Method: "POST", Host: "chats.example.com", URI: uri, Body: string(body), ContentLength: int64(len(body)),
			Header: http.Header{
				"Content-Type":        {"application/json"},
				"Content-Length":      {fmt.Sprint(len(body))},
				"X-Guuru-Event":       {"chat-rated"},
				"Idempotency-Key":     {"a key"},
				"X-Guuru-Hmac-Sha256": {sig},
				"Forwarded":           {"for=192.0.2.1"},
				"X-Forwarded-For":     {"192.0.2.1"},
				"X-Forwarded-Host":    {"chats.example.com"},
				"X-Forwarded-Proto":   {"https"},
			},
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: the backend got %+v\nwant %+v", tc.name, got, want)
		}
	}
	if taken != 3 {
		t.Errorf("got %d requests at the backend, want 3", taken)
	}

	back.Kill()
	if got, want := send(t, gateway.Addr, "POST / HTTP/1.1\r\n"+header+length), "502  "; got != want {
		t.Errorf("without a backend: got %q, want %q", got, want)
	}
}

// A backend may close an idle connection just as a delivery goes out on it. The gateway
// sends it once more, on a new one.
func TestBackendClosesIdleConnection(t *testing.T) {
	backend, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Close()
	gateway := program.Start(t, []string{secret}, "-upstream", "http://"+backend.Addr().String())
	body, sig := program.Example(t, 1)
	go func() {
		for n := 0; ; n++ {
			conn, err := backend.Accept()
			if err != nil {
				return
			}
			requests := bufio.NewReader(conn)
			for answers := 0; ; answers++ {
				r, err := http.ReadRequest(requests)
				if err != nil {
					break
				}
				if got, err := io.ReadAll(r.Body); string(got) != string(body) || err != nil {
					t.Errorf("connection %d: the backend got %q, %v; want %q, nil", n, got, err, body)
				}
				if n == 0 && answers == 1 {
					break // the second request on the first connection
				}
				fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d", n)
			}
			conn.Close()
		}
	}()
	for _, want := range []string{"200  0", "200  1"} {
		got := send(t, gateway.Addr, fmt.Sprintf("POST / HTTP/1.1\r\nHost: localhost\r\nIdempotency-Key: a key\r\nX-Guuru-Hmac-Sha256: %s\r\nContent-Length: %d\r\n\r\n%s", sig, len(body), body))
		if got != want {
			t.Errorf("got %q, want %q\n%s", got, want, gateway.Stderr())
		}
	}
}

func TestWillNotStart(t *testing.T) {
	for _, tc := range []struct {
		env, upstream, want string
	}{
		{secret, "", `-upstream "" is not the URL of an HTTP server`},
		{secret, "localhost:9000", `-upstream "localhost:9000" is not the URL of an HTTP server`},
		{secret, "http://", `-upstream "http://" is not the URL of an HTTP server`},
		{secret, "ftp://localhost", `-upstream "ftp://localhost" is not the URL of an HTTP server`},
		{secret, "http://[", `-upstream "http://[" is not the URL of an HTTP server`},
		{"GUURU_SECRET=", "http://localhost:9000", "GUURU_SECRET is not set"},
	} {
		_, stderr, status := program.Run(t, "", []string{tc.env}, "-addr", "127.0.0.1:0", "-upstream", tc.upstream)
		if status == 0 || !strings.HasSuffix(stderr, tc.want+"\n") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s, -upstream %q: got status %d, stderr %q; want another status than 0 and %q", tc.env, tc.upstream, status, stderr, tc.want)
		}
	}
}
