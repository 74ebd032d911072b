package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"example.com/hmacverify"
	"example.com/hmacverify/examples/internal/program"
)

func TestMain(m *testing.M) { program.Main(m) }

func TestSend(t *testing.T) {
	rc, err := hmacverify.New("secr3t")
	if err != nil {
		t.Fatal(err)
	}
	type seen struct{ event, contentType, body string }
	var mu sync.Mutex // guards the two below
	var got []seen
	keys := map[string]bool{}
	server := httptest.NewServer(rc.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		got = append(got, seen{r.Header.Get("X-Guuru-Event"), r.Header.Get("Content-Type"), string(body)})
		keys[r.Header.Get("Idempotency-Key")] = true
		mu.Unlock()
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "/", http.StatusFound)
		case "/full":
			http.Error(w, "disk\x1b full", http.StatusInsufficientStorage)
		case "/created":
			w.WriteHeader(http.StatusCreated)
		default:
			io.WriteString(w, "Success!")
		}
	})))
	defer server.Close()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()

	file1, file2 := filepath.Join("..", "..", "testdata", "example1.json"), filepath.Join("..", "..", "testdata", "example2.json")
	body1, _ := program.Example(t, 1)
	body2, _ := program.Example(t, 2)
	notJSON := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(notJSON, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	const secret, contentType = "GUURU_SECRET=secr3t", "application/json"
	for _, tc := range []struct {
		name   string
		env    string
		args   []string
		stdin  string
		stdout string
		stderr string
		status int
		seen   []seen
	}{
		{"two files", secret, []string{"-url", server.URL, file1, file2}, "",
			file1 + " 200 \"Success!\"\n" + file2 + " 200 \"Success!\"\n", "", 0,
			[]seen{{"chat-rated", contentType, string(body1)}, {"chat-rated", contentType, string(body2)}}},
		{"standard input", secret, []string{"-url", server.URL, "-event", "message-created", "-"}, "[]",
			"- 200 \"Success!\"\n", "", 0, []seen{{"message-created", contentType, "[]"}}},
		{"another 2xx", secret, []string{"-url", server.URL + "/created", "-"}, "{}",
			"- 201 \"\"\n", "", 0, []seen{{"chat-rated", contentType, "{}"}}},
		{"another secret", "GUURU_SECRET=other", []string{"-url", server.URL, "-"}, "{}",
			"- 400 \"Invalid request, non-matching HMAC-SHA256 received\"\n", "", 1, nil},
		{"one of two refused", secret, []string{"-url", server.URL, notJSON, file1}, "",
			notJSON + " 400 \"Invalid request, body is not JSON\"\n" + file1 + " 200 \"Success!\"\n", "", 1,
			[]seen{{"chat-rated", contentType, string(body1)}}},
		{"an answer for no terminal", secret, []string{"-url", server.URL + "/full", "-"}, "{}",
			"- 507 \"disk\\x1b full\\n\"\n", "", 1, []seen{{"chat-rated", contentType, "{}"}}},
		{"redirect", secret, []string{"-url", server.URL + "/moved", "-"}, "{}",
			"- 302 \"\"\n", "", 1, []seen{{"chat-rated", contentType, "{}"}}},
		{"nobody listens", secret, []string{"-url", gone.URL, "-"}, "{}",
			"connection refused\n", "", 1, nil},
		{"no such file", secret, []string{"-url", server.URL, "absent", file1}, "",
			"no such file or directory\n" + file1 + " 200 \"Success!\"\n", "", 1,
			[]seen{{"chat-rated", contentType, string(body1)}}},
		{"no URL", secret, []string{"-url", "::", "-"}, "{}", "missing protocol scheme\n", "", 1, nil},
		{"no file", secret, []string{"-url", server.URL}, "", "", "no file to send\n", 1, nil},
		{"no secret", "GUURU_SECRET=", []string{"-url", server.URL, file1}, "", "", "GUURU_SECRET is not set\n", 1, nil},
	} {
		stdout, stderr, status := program.Run(t, tc.stdin, []string{tc.env}, tc.args...)
		if !strings.HasSuffix(stdout, tc.stdout) || !strings.HasSuffix(stderr, tc.stderr) || (stderr == "") != (tc.stderr == "") || status != tc.status {
			t.Errorf("%s: got stdout %q, stderr %q, status %d\nwant %q, %q, %d", tc.name, stdout, stderr, status, tc.stdout, tc.stderr, tc.status)
		}
		mu.Lock()
		if !slices.Equal(got, tc.seen) {
			t.Errorf("%s: the server got %q\nwant %q", tc.name, got, tc.seen)
		}
		got = nil
		mu.Unlock()
	}
	mu.Lock()
	defer mu.Unlock()
	if len(keys) != 8 || keys[""] {
		t.Errorf("got idempotency keys %v, want one of its own for each of 8 requests", keys)
	}
}
