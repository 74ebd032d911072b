package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"example.com/hmacverify"
	"example.com/hmacverify/examples/internal/program"
)

func TestMain(m *testing.M) { program.Main(m) }

var secret = []string{"GUURU_SECRET=secr3t"}

func post(t *testing.T, url string, body []byte) string {
	t.Helper()
	answer, err := program.Post(url, bytes.NewReader(body), hmacverify.Sign("secr3t", body))
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// readInbox returns the bodies in the file, having checked every line.
func readInbox(t *testing.T, name string) (bodies []string) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for n, line := range strings.SplitAfter(string(text), "\n") {
		if line == "" { // after the last newline
			continue
		}
		var d struct {
			Time                             time.Time
			Event, IdempotencyKey, Signature string
			Body                             []byte
		}
		if err := json.Unmarshal([]byte(line), &d); err != nil || !strings.HasSuffix(line, "\n") {
			t.Fatalf("line %d is not a whole one: %q, %v", n+1, line, err)
		}
		if err := hmacverify.Verify("secr3t", d.Body, d.Signature); err != nil {
			t.Errorf("line %d: signature: got %v, want nil", n+1, err)
		}
		if d.Event != "chat-rated" || d.IdempotencyKey != "a key" || time.Since(d.Time) > time.Hour {
			t.Errorf("line %d: got %+v, want what was sent just now", n+1, d)
		}
		bodies = append(bodies, string(d.Body))
	}
	return bodies
}

func TestInbox(t *testing.T) {
	file := filepath.Join(t.TempDir(), "inbox.jsonl")
	p := program.Start(t, secret, "-file", file)
	example, _ := program.Example(t, 2)
	bodies := []string{string(example), `{}`, " {\n} ", "\"not UTF-8: \xff, \xc3\"", `"` + strings.Repeat("x", 100_000) + `"`}
	want := func(p *program.Process, when string) {
		t.Helper()
		for _, body := range bodies {
			if got, want := post(t, p.URL, []byte(body)), "200 Success!"; got != want {
				t.Errorf("%s: %.40q: got %q, want %q", when, body, got, want)
			}
		}
		if got := readInbox(t, file); !slices.Equal(got, bodies) {
			t.Errorf("%s: got bodies %.40q\nwant %.40q", when, got, bodies)
		}
	}
	want(p, "at first")
	want(p, "again")
	unsigned, err := program.Post(p.URL, strings.NewReader("3"))
	if want := "400 Invalid request, non-matching HMAC-SHA256 received"; unsigned != want || err != nil {
		t.Errorf("unsigned: got %q, %v; want %q", unsigned, err, want)
	}
	p.Signal(syscall.SIGTERM)
	if got := p.Wait(); got != 0 {
		t.Errorf("got status %d, want 0", got)
	}

	p = program.Start(t, secret, "-file", file)
	want(p, "after a restart")
	p.Kill()
	if runtime.GOOS != "windows" {
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("got mode %v, %v; want a file for its owner only", info.Mode(), err)
		}
	}
}

// The same body under another event's name is another delivery, and an event's name of
// any bytes is the same after a restart.
func TestEventsTellDeliveriesApart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "inbox.jsonl")
	for range 2 {
		p := program.Start(t, secret, "-file", file)
		for _, event := range []string{"chat-rated", "chat-closed", "\xff\xfe", "", "chat-rated"} {
			r, err := http.NewRequest("POST", p.URL, strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("X-Guuru-Hmac-Sha256", hmacverify.Sign("secr3t", []byte("{}")))
			r.Header.Set("X-Guuru-Event", event)
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != 200 {
				t.Errorf("event %q: got %d, want 200", event, resp.StatusCode)
			}
		}
		p.Kill()
	}
	text, err := os.ReadFile(file)
	if got, want := bytes.Count(text, []byte("\n")), 4; got != want || err != nil {
		t.Errorf("got %d lines, %v; want %d\n%s", got, err, want, text)
	}
}

func TestLineCutShort(t *testing.T) {
	file := filepath.Join(t.TempDir(), "inbox.jsonl")
	p := program.Start(t, secret, "-file", file)
	for _, body := range []string{`1`, `2`, `3`} {
		post(t, p.URL, []byte(body))
	}
	p.Kill()
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	second := len(whole) - len(whole)/3 // all lines have one length, or nearly
	for bytes.Count(whole[:second], []byte("\n")) < 2 {
		second++
	}
	for _, size := range []int{len(whole) - 1, len(whole) - 10, second + 1} {
		if err := os.WriteFile(file, whole[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		p := program.Start(t, secret, "-file", file)
		if log := p.Stderr(); !strings.Contains(log, "dropped a line that was cut short") {
			t.Errorf("cut at byte %d: got log %q, want that a line was dropped", size, log)
		}
		if got, want := readInbox(t, file), []string{`1`, `2`}; !slices.Equal(got, want) {
			t.Errorf("cut at byte %d: got %q, want %q", size, got, want)
		}
		if got, want := post(t, p.URL, []byte(`3`)), "200 Success!"; got != want {
			t.Errorf("cut at byte %d: got %q, want %q", size, got, want)
		}
		if got, want := readInbox(t, file), []string{`1`, `2`, `3`}; !slices.Equal(got, want) {
			t.Errorf("cut at byte %d: got %q, want %q", size, got, want)
		}
		p.Kill()
	}
}

func TestWillNotStart(t *testing.T) {
	dir := t.TempDir()
	damaged := filepath.Join(dir, "damaged")
	const text = `{"event":"a"}` + "\nnot JSON\n" + `{"event":"b"}` + "\n"
	if err := os.WriteFile(damaged, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ env, file, want string }{
		{secret[0], damaged, "damaged, line 2: "},
		{secret[0], dir, "is a directory"},
		{secret[0], filepath.Join(dir, "absent", "inbox.jsonl"), "no such file or directory"},
		{"GUURU_SECRET=", filepath.Join(dir, "new"), "GUURU_SECRET is not set"},
	} {
		_, stderr, status := program.Run(t, "", []string{tc.env}, "-addr", "127.0.0.1:0", "-file", tc.file)
		if status == 0 || !strings.Contains(stderr, tc.want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: got status %d, stderr %q; want another status than 0 and one line with %q", tc.file, status, stderr, tc.want)
		}
	}
	if got, err := os.ReadFile(damaged); string(got) != text || err != nil {
		t.Errorf("the damaged file was changed: %q, %v", got, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "new")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file was made without a secret")
	}
}

// A write that fails is 500 and leaves no half line, and goes through when there is
// room again: the limit on the size of files stands for a disk that is full.
func TestDiskFull(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("ulimit -f counts in other units elsewhere")
	}
	file := filepath.Join(t.TempDir(), "inbox.jsonl")
	limited := filepath.Join(t.TempDir(), "limited")
	// 4 blocks of 512 bytes, as POSIX has it
	if err := os.WriteFile(limited, []byte("#!/bin/sh\nulimit -f 4 && exec \"$PROGRAM\" \"$@\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	p := program.StartFile(t, limited, append([]string{"PROGRAM=" + program.Binary}, secret...), "-file", file)
	small, large := []byte(`"`+strings.Repeat("s", 300)+`"`), []byte(`"`+strings.Repeat("l", 2000)+`"`)
	for _, tc := range []struct {
		body []byte
		want string
		file []string
	}{
		{small, "200 Success!", []string{string(small)}},
		{large, "500 Delivery not taken\n", []string{string(small)}},
		{large, "500 Delivery not taken\n", []string{string(small)}},
		{small, "200 Success!", []string{string(small)}},
		{[]byte("{}"), "200 Success!", []string{string(small), "{}"}},
	} {
		if got := post(t, p.URL, tc.body); got != tc.want {
			t.Errorf("%.10s: got %q, want %q", tc.body, got, tc.want)
		}
		if got := readInbox(t, file); !slices.Equal(got, tc.file) {
			t.Errorf("%.10s: got the file %.10q, want %.10q", tc.body, got, tc.file)
		}
	}
	p.Kill()

	p = program.Start(t, secret, "-file", file)
	if got, want := post(t, p.URL, large), "200 Success!"; got != want {
		t.Errorf("with room again: got %q, want %q", got, want)
	}
	if got := readInbox(t, file); len(got) != 3 {
		t.Errorf("with room again: got %d deliveries, want 3", len(got))
	}
}

// A disk is a file of which the next syncs fail.
type disk struct {
	*os.File
	failures, syncs int
}

func (d *disk) Sync() error {
	d.syncs++
	if d.failures > 0 {
		d.failures--
		return errors.New("input/output error")
	}
	return d.File.Sync()
}

// What the system has taken but not synced is not on disk: 500, and no line.
func TestSyncFails(t *testing.T) {
	name := filepath.Join(t.TempDir(), "inbox.jsonl")
	in, err := openInbox(name)
	if err != nil {
		t.Fatal(err)
	}
	file := &disk{File: in.file.(*os.File), failures: 2}
	in.file = file
	for n, want := range []int{500, 500, 200, 200} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("POST", "/", strings.NewReader("{}"))
		r.Header.Set("X-Guuru-Hmac-Sha256", hmacverify.Sign("secr3t", []byte("{}")))
		r.Header.Set("X-Guuru-Event", "chat-rated")
		r.Header.Set("Idempotency-Key", "a key")
		in.ServeHTTP(w, r)
		lines := 0
		if want == 200 {
			lines = 1
		}
		if got := readInbox(t, name); w.Code != want || len(got) != lines {
			t.Errorf("request %d: got %d and %d lines, want %d and %d", n, w.Code, len(got), want, lines)
		}
	}
	if file.syncs != 3 {
		t.Errorf("got %d syncs, want 3: the repetition needs none", file.syncs)
	}
}

// Under load, killed again and again: what was answered with 200 is there, once.
func TestKilledUnderLoad(t *testing.T) {
	const kills, senders = 20, 8
	file := filepath.Join(t.TempDir(), "inbox.jsonl")
	taken := map[string]bool{} // answered with 200
	var mu sync.Mutex
	for kill := range kills {
		p := program.Start(t, secret, "-file", file)
		var wg sync.WaitGroup
		for s := range senders {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for n := 0; ; n++ {
					body := fmt.Sprintf(`{"id":"%d-%d-%d"}`, kill, s, n)
					answer, err := program.Post(p.URL, strings.NewReader(body), hmacverify.Sign("secr3t", []byte(body)))
					if err != nil {
						return // the process is gone
					}
					if answer != "200 Success!" {
						t.Errorf("got %q, want 200", answer)
						return
					}
					mu.Lock()
					taken[body] = true
					mu.Unlock()
				}
			}()
		}
		time.Sleep(time.Duration(5+rand.Intn(50)) * time.Millisecond)
		p.Kill()
		wg.Wait()
		http.DefaultClient.CloseIdleConnections()
	}

	p := program.Start(t, secret, "-file", file)
	again := 0
	for body := range taken { // the sender did not hear of the 200, and tries again
		if got, want := post(t, p.URL, []byte(body)), "200 Success!"; got != want {
			t.Errorf("%s again: got %q, want %q", body, got, want)
		}
		if again++; again == 200 {
			break
		}
	}
	p.Kill()
	count := map[string]int{}
	for _, body := range readInbox(t, file) {
		count[body]++
		if count[body] > 1 {
			t.Errorf("%s is in the file %d times", body, count[body])
		}
	}
	for body := range taken {
		if count[body] != 1 {
			t.Errorf("%s was answered with 200 and is in the file %d times", body, count[body])
		}
	}
	if len(taken) < kills {
		t.Errorf("got %d deliveries through %d kills: no load", len(taken), kills)
	}
	t.Logf("%d deliveries answered with 200, %d in the file, %d kills", len(taken), len(count), kills)
}

// Deliveries from 64 senders at a time. The baseline syncs each one on its own.
func BenchmarkInbox(b *testing.B) {
	for _, shared := range []bool{true, false} {
		name := "one sync each"
		if shared {
			name = "shared sync"
		}
		b.Run(name, func(b *testing.B) {
			in, err := openInbox(filepath.Join(b.TempDir(), "inbox.jsonl"))
			if err != nil {
				b.Fatal(err)
			}
			var handler http.Handler = in
			var mu sync.Mutex
			if !shared {
				handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					mu.Lock()
					defer mu.Unlock()
					in.ServeHTTP(w, r) // alone, so in a batch of one
				})
			}
			var n atomic.Int64
			b.SetParallelism(64 / runtime.GOMAXPROCS(0))
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					body := fmt.Appendf(nil, `{"id":"%d"}`, n.Add(1))
					r := httptest.NewRequest("POST", "/", bytes.NewReader(body))
					r.Header.Set("X-Guuru-Hmac-Sha256", hmacverify.Sign("secr3t", body))
					w := httptest.NewRecorder()
					if handler.ServeHTTP(w, r); w.Code != 200 {
						b.Error(w.Code, w.Body)
					}
				}
			})
		})
	}
}
