package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"example.com/hmacverify"
	"example.com/hmacverify/examples/internal/program"
)

func TestMain(m *testing.M) { program.Main(m) }

const mismatch = "400 Invalid request, non-matching HMAC-SHA256 received"

var env = []string{"GUURU_SECRET=secr3t"}

func post(t *testing.T, url string, body []byte, sigs ...string) string {
	t.Helper()
	answer, err := program.Post(url, bytes.NewReader(body), sigs...)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

func TestDocumentedRequests(t *testing.T) {
	p := program.Start(t, env)
	for n := 1; n <= 3; n++ {
		body, sig := program.Example(t, n)
		if got, want := post(t, p.URL+"/any/path", body, sig), "200 Success!"; got != want {
			t.Errorf("example %d: got %q, want %q", n, got, want)
		}
		line, err := p.Stdout.ReadBytes('\n')
		if err != nil {
			t.Fatal(err)
		}
		var got, payload any
		if err := json.Unmarshal(line, &got); err != nil {
			t.Errorf("example %d: printed %q: %v", n, line, err)
		}
		if err := json.Unmarshal(body, &payload); err != nil {
			t.Fatal(err)
		}
		want := map[string]any{"event": "chat-rated", "idempotencyKey": "a key", "payload": payload}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("example %d: printed %v\nwant %v", n, got, want)
		}
	}
}

// What one or the other of the documented receivers crashes, hangs or errs on.
func TestRequestsThatBreakDocumentedReceivers(t *testing.T) {
	p := program.Start(t, env)
	body, sig := program.Example(t, 1)
	forged := strings.Repeat("0", 64)

	zero, zeroSig := []byte(nil), "" // a signature that begins with 0
	for n := 0; !strings.HasPrefix(zeroSig, "0"); n++ {
		zero = fmt.Appendf(nil, `{"rating":%d}`, n)
		zeroSig = hmacverify.Sign("secr3t", zero)
	}
	for _, tc := range []struct {
		name string
		body []byte
		sigs []string
		want string
	}{
		{"unsigned", body, nil, mismatch},
		{"empty signature", body, []string{""}, mismatch},
		{"signature of 5 characters", body, []string{"b354f"}, mismatch},
		{"not ASCII", body, []string{sig[:62] + "é"}, mismatch},
		{"wrong", body, []string{forged}, mismatch},
		{"two signatures, the right one first", body, []string{sig, forged}, mismatch},
		{"two signatures, the right one last", body, []string{forged, sig}, mismatch},
		{"signature that begins with 0", zero, []string{zeroSig}, "200 Success!"},
		{"too large", bytes.Repeat([]byte{' '}, 1<<20+1), []string{forged}, "413 Invalid request, body is too large"},
	} {
		if got := post(t, p.URL, tc.body, tc.sigs...); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
		if got, want := post(t, p.URL, body, sig), "200 Success!"; got != want {
			t.Errorf("after %s: got %q, want %q", tc.name, got, want)
		}
	}
}

func TestPreviousSecret(t *testing.T) {
	p := program.Start(t, []string{"GUURU_SECRET=new", "GUURU_SECRET_PREVIOUS=secr3t"})
	body, sig := program.Example(t, 1)
	for _, tc := range []struct{ sig, want string }{
		{sig, "200 Success!"},
		{hmacverify.Sign("new", body), "200 Success!"},
		{hmacverify.Sign("another", body), mismatch},
	} {
		if got := post(t, p.URL, body, tc.sig); got != tc.want {
			t.Errorf("signed with %s: got %q, want %q", tc.sig, got, tc.want)
		}
	}
}

func TestShutdownFinishesRequests(t *testing.T) {
	body, sig := program.Example(t, 1)
	for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		p := program.Start(t, env)
		conn, err := net.Dial("tcp", p.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		// The server is asked for the body before the signal comes: it is in the request.
		fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nX-Guuru-Hmac-Sha256: %s\r\nContent-Length: %d\r\n\r\n", sig, len(body))
		answers := bufio.NewReader(conn)
		if line, err := answers.ReadString('\n'); line != "HTTP/1.1 100 Continue\r\n" {
			t.Fatalf("%v: got %q, %v; want 100 Continue", signal, line, err)
		}
		answers.ReadString('\n')

		p.Signal(signal)
		p.WaitForLog("shutting down")
		conn.Write(body)
		if line, err := answers.ReadString('\n'); line != "HTTP/1.1 200 OK\r\n" {
			t.Errorf("%v: got %q, %v; want 200 OK", signal, line, err)
		}
		if got := p.Wait(); got != 0 {
			t.Errorf("%v: got status %d, want 0\n%s", signal, got, p.Stderr())
		}
	}
}

func TestWillNotStart(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, tc := range []struct {
		name   string
		env    []string
		args   []string
		stderr string
	}{
		{"no secret", nil, nil, "GUURU_SECRET is not set"},
		{"empty secret", []string{"GUURU_SECRET="}, nil, "GUURU_SECRET is not set"},
		{"only the previous secret", []string{"GUURU_SECRET_PREVIOUS=secr3t"}, nil, "GUURU_SECRET is not set"},
		{"port taken", env, []string{"-addr", taken.Addr().String()}, "address already in use"},
	} {
		stdout, stderr, status := program.Run(t, "", tc.env, tc.args...)
		if status == 0 || stdout != "" || !strings.Contains(stderr, tc.stderr) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: got status %d, stdout %q, stderr %q; want another status than 0 and one line with %q", tc.name, status, stdout, stderr, tc.stderr)
		}
	}
}
