// Package examples_test runs the example programs as processes.
package examples_test

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/hmacverify"
)

// patience bounds every wait. Only a failing test waits that long.
const patience = 40 * time.Second

const (
	secret = "GUURU_SECRET=secr3t"
	key    = `a "key" with \ and <é>`
)

// bin is the directory of the programs.
var bin string

func TestMain(m *testing.M) {
	flag.Set("test.parallel", "20") // most tests wait, some for 30 seconds
	status := m.Run()
	if bin != "" {
		os.RemoveAll(filepath.Dir(bin))
	}
	os.Exit(status)
}

// build builds the programs once, from copies of their main.go in another
// module. go test's cache tracks only files that a test opens, so TestMain must
// not call it.
var build = sync.OnceValue(func() error {
	dir, err := os.MkdirTemp("", "hmacverify-")
	if err != nil {
		return err
	}
	bin = filepath.Join(dir, "bin")
	module, err := filepath.Abs("..")
	if err != nil {
		return err
	}
	mod := "module copies\n\ngo 1.24\n\nrequire example.com/hmacverify v0.0.0\n\nreplace example.com/hmacverify => " + strconv.Quote(module) + "\n"
	err = os.WriteFile(filepath.Join(dir, "go.mod"), []byte(mod), 0o600)
	for _, name := range []string{"receiver", "send", "gateway", "inbox"} {
		text, readErr := os.ReadFile(filepath.Join(name, "main.go"))
		err = errors.Join(err, readErr, os.Mkdir(filepath.Join(dir, name), 0o700),
			os.WriteFile(filepath.Join(dir, name, "main.go"), text, 0o600))
	}
	if err != nil {
		return err
	}
	build := exec.Command("go", "build", "-o", bin+string(filepath.Separator), "./...")
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		build.Args = slices.Insert(build.Args, 2, "-race")
	}
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %v\n%s", err, out)
	}
	return nil
})

// command returns a command whose environment is the test's, without GUURU_
// variables, plus env. It builds the programs first.
func command(t *testing.T, env []string, name string, args ...string) *exec.Cmd {
	t.Helper()
	if err := build(); err != nil {
		t.Fatal(err)
	}
	if !strings.ContainsRune(name, filepath.Separator) {
		name = filepath.Join(bin, name)
	}
	cmd := exec.Command(name, args...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "GUURU_") })
	cmd.Env = append(cmd.Env, env...)
	return cmd
}

// run runs a program to its end.
func run(t *testing.T, stdin, env, name string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	cmd := command(t, []string{env}, name, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(patience, func() { cmd.Process.Kill() }).Stop()
	cmd.Wait()
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// A process is a program that listens.
type process struct {
	*exec.Cmd
	addr  string
	ended chan struct{}

	mu  sync.Mutex
	log strings.Builder // what is on standard error
}

// start starts a program on a free port and returns once it listens.
func start(t *testing.T, env []string, name string, args ...string) *process {
	t.Helper()
	p := launch(t, env, name, args...)
	if p.addr == "" {
		t.Fatalf("%s does not listen: %v\n%s", name, p.ProcessState, p.logged())
	}
	return p
}

// launch is like start, but the program may exit. It then has no addr.
func launch(t *testing.T, env []string, name string, args ...string) *process {
	t.Helper()
	p := &process{Cmd: command(t, env, name, append(args, "-addr", "127.0.0.1:0")...), ended: make(chan struct{})}
	stderr, err := p.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	addr := make(chan string, 1)
	go func() {
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			p.mu.Lock()
			fmt.Fprintln(&p.log, lines.Text())
			p.mu.Unlock()
			if _, after, ok := strings.Cut(lines.Text(), "listening addr="); ok {
				addr <- after
			}
		}
		p.Wait()
		close(p.ended)
	}()
	select {
	case p.addr = <-addr:
	case <-p.ended:
	case <-time.After(patience):
	}
	return p
}

func (p *process) logged() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// waitForLog waits for text in the log.
func (p *process) waitForLog(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(patience); !strings.Contains(p.logged(), text); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the log has no %q:\n%s", text, p.logged())
		}
	}
}

// wait waits for the end of the process and returns its status.
func (p *process) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		t.Fatalf("the process does not end:\n%s", p.logged())
	}
	return p.ProcessState.ExitCode()
}

func (p *process) kill() {
	p.Process.Kill()
	<-p.ended
}

// try posts body with sig and event. It returns the response's status and text.
func try(p *process, event, body, sig string) (string, error) {
	r, err := http.NewRequest("POST", "http://"+p.addr, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	r.Header.Set("X-Guuru-Hmac-Sha256", sig)
	r.Header.Set("X-Guuru-Event", event)
	r.Header.Set("Idempotency-Key", key)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return fmt.Sprintf("%d %s", resp.StatusCode, text), err
}

// post is like try, for a chat-rated with a valid signature.
func post(t *testing.T, p *process, body string) string {
	t.Helper()
	response, err := try(p, "chat-rated", body, hmacverify.Sign("secr3t", []byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	return response
}

// documented returns the nth of the documented bodies and its signature.
func documented(t *testing.T, n int) (body, sig string) {
	t.Helper()
	stem := filepath.Join("..", "testdata", fmt.Sprintf("example%d", n))
	text, err := os.ReadFile(stem + ".json")
	if err != nil {
		t.Fatal(err)
	}
	hex, err := os.ReadFile(stem + ".sig")
	if err != nil {
		t.Fatal(err)
	}
	return string(text), string(hex)
}

const mismatch = "400 Invalid request, non-matching HMAC-SHA256 received"

func TestBadConfigurationEndsProgram(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := filepath.Join(t.TempDir(), "inbox")
	listens := map[string][]string{
		"receiver": {"-addr", "127.0.0.1:0"},
		"gateway":  {"-addr", "127.0.0.1:0", "-upstream", "http://localhost:9000"},
		"inbox":    {"-addr", "127.0.0.1:0", "-dir", dir},
		"send":     {os.DevNull},
	}
	type row struct {
		program, env string
		args         []string
		want         string
	}
	var rows []row
	for name, args := range listens {
		rows = append(rows,
			row{name, "GUURU_SECRET=", args, "GUURU_SECRET: hmacverify: empty secret"},
			row{name, "GUURU_SECRET_PREVIOUS=secr3t", args, "GUURU_SECRET: hmacverify: empty secret"},
			row{name, "GUURU_SECRET=secr3t\n", args, "GUURU_SECRET: hmacverify: secret 1 of 1 contains a line break"})
		if name != "send" {
			rows = append(rows,
				row{name, secret, append(slices.Clone(args), "left"), `unexpected argument "left"`},
				row{name, secret, append(slices.Clone(args), "-addr", taken.Addr().String()), "address already in use"})
		}
	}
	rows = append(rows, row{"send", secret, nil, "no file to send"})
	for _, upstream := range []string{"", "localhost:9000", "http://", "ftp://localhost", "http://["} {
		rows = append(rows, row{"gateway", secret, []string{"-upstream", upstream}, "-upstream is not a URL like http://localhost:9000/guuru"})
	}
	rows = append(rows, row{"gateway", secret, []string{"-upstream", "http://user:hidden@localhost"}, "-upstream has a user or password"})
	for _, tc := range rows {
		stdout, stderr, status := run(t, "", tc.env, tc.program, tc.args...)
		if status == 0 || stdout != "" || !strings.Contains(stderr, tc.want) || strings.Count(stderr, "\n") != 1 || strings.Contains(stderr, "hidden") {
			t.Errorf("%s %q %s: got status %d, %q, %q; want a nonzero status and one line with %q", tc.program, tc.args, tc.env, status, stdout, stderr, tc.want)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Error("an inbox that did not start made its directory")
	}
}

// The commands of the README's quick start, on another port.
func TestQuickStart(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile(filepath.Join("..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	commands := regexp.MustCompile(`(?m)^(GUURU_SECRET=\S+) go run \./examples/receiver$|^curl (?:.*\\\n)*.*$`).FindAllStringSubmatch(string(readme), -1)
	if len(commands) < 2 {
		t.Fatalf("got commands %q, want the receiver and curl", commands)
	}
	p := start(t, []string{commands[0][1]}, "receiver")
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("no curl")
	}
	curl := exec.Command("sh", "-c", strings.Replace(commands[1][0], "localhost:8000", p.addr, 1))
	curl.Dir = ".."
	if out, err := curl.Output(); string(out) != "Success!" || err != nil {
		t.Errorf("%s: got %q, %v; want Success!", curl, out, err)
	}
	p.waitForLog(t, "chat-rated")
}

func TestReceiver(t *testing.T) {
	t.Parallel()
	p := start(t, []string{secret}, "receiver")
	for n, question := range []string{"My router lights are all yellow", "Is shipping free for Portugal?", "hello 123"} {
		body, sig := documented(t, n+1)
		if got, err := try(p, "chat-rated", body, sig); got != "200 Success!" || err != nil {
			t.Errorf("example %d: got %q, %v; want 200", n+1, got, err)
		}
		p.waitForLog(t, question)
	}
	body, sig := documented(t, 2)
	for _, tc := range []struct{ event, body, sig, want, log string }{
		{"chat-rated", body, sig, "200 Success!", `INFO chat-rated user=João question="Is shipping free for Portugal?" status=rated rating=1`},
		{"chat-closed", body, sig, "200 Success!", "INFO ignored event=chat-closed"},
		{"message-created", `{"user":"joao"}`, "", "200 Success!", "INFO ignored event=message-created"},
		{"chat-rated", `{"rating":"good"}`, "", "500 payload not decoded\n", "signature=" + hmacverify.Sign("secr3t", []byte(`{"rating":"good"}`))},
		{"chat-rated", body, strings.Repeat("0", 64), mismatch, `err="hmacverify: signature mismatch: read 344 bytes, Content-Length 344"`},
		{"chat-rated", body, sig[:5], mismatch, `err="hmacverify: malformed signature: length 5, want 64"`},
		{"chat-rated", strings.Repeat(" ", 1<<20+1), sig, "413 Invalid request, body is too large", "body over limit of 1048576 bytes: "},
	} {
		if tc.sig == "" {
			tc.sig = hmacverify.Sign("secr3t", []byte(tc.body))
		}
		if got, err := try(p, tc.event, tc.body, tc.sig); got != tc.want || err != nil {
			t.Errorf("%s %.20s: got %q, %v; want %q", tc.event, tc.body, got, err, tc.want)
		}
		p.waitForLog(t, tc.log)
	}
}

func TestPreviousSecret(t *testing.T) {
	t.Parallel()
	env := []string{"GUURU_SECRET=new", "GUURU_SECRET_PREVIOUS=secr3t"}
	body, sig := documented(t, 1)
	back := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer back.Close()
	gateway := start(t, env, "gateway", "-upstream", back.URL)
	inbox := start(t, env, "inbox", "-dir", t.TempDir())
	for _, p := range []*process{gateway, inbox} {
		for sig, want := range map[string]string{sig: "20", hmacverify.Sign("new", []byte(body)): "20", hmacverify.Sign("another", []byte(body)): "400"} {
			if got, err := try(p, "chat-rated", body, sig); !strings.HasPrefix(got, want) || err != nil {
				t.Errorf("%s: got %q, %v; want %s", p, got, err, want)
			}
		}
		p.waitForLog(t, `err="hmacverify: signature mismatch`)
	}
	gateway.waitForLog(t, "signed with the previous secret")
	notes := regexp.MustCompile(`id=\S+-(\w+) note="signed with the previous secret"`).FindAllStringSubmatch(gateway.logged(), -1)
	if len(notes) != 1 || notes[0][1] != sig {
		t.Errorf("got notes %q in the log, want one for %s\n%s", notes, sig, gateway.logged())
	}
}

// On a signal, a program finishes the request in progress.
func TestShutdown(t *testing.T) {
	t.Parallel()
	back := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer back.Close()
	body, sig := documented(t, 1)
	for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		for _, p := range []*process{
			start(t, []string{secret}, "receiver"),
			start(t, []string{secret}, "inbox", "-dir", t.TempDir()),
			start(t, []string{secret}, "gateway", "-upstream", back.URL),
		} {
			conn, err := net.Dial("tcp", p.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			// Once the server asks for the body, the request is in progress.
			fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nX-Guuru-Hmac-Sha256: %s\r\nContent-Length: %d\r\n\r\n", sig, len(body))
			responses := bufio.NewReader(conn)
			if line, err := responses.ReadString('\n'); line != "HTTP/1.1 100 Continue\r\n" {
				t.Fatalf("%s, %v: got %q, %v; want 100 Continue", p, signal, line, err)
			}
			responses.ReadString('\n')
			if err := p.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			for {
				other, err := net.Dial("tcp", p.addr)
				if err != nil {
					break // it accepts no more
				}
				other.Close()
			}
			io.WriteString(conn, body)
			if line, err := responses.ReadString('\n'); !strings.HasPrefix(line, "HTTP/1.1 20") {
				t.Errorf("%s, %v: got %q, %v; want 2xx", p, signal, line, err)
			}
			if got := p.wait(t); got != 0 {
				t.Errorf("%s, %v: got status %d, want 0\n%s", p, signal, got, p.logged())
			}
		}
	}
}

// Send gives up on a server that accepts and never responds.
func TestSendTimesOut(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	before := time.Now()
	stdout, _, status := run(t, "{}", secret, "send", "-url", "http://"+listener.Addr().String(), "-")
	if took := time.Since(before); status != 1 || !strings.Contains(stdout, "Client.Timeout exceeded") || took > patience {
		t.Errorf("got %q, status %d after %v; want a timeout", stdout, status, took)
	}
}

func TestSend(t *testing.T) {
	t.Parallel()
	rc, err := hmacverify.New("secr3t")
	if err != nil {
		t.Fatal(err)
	}
	requests := make(chan string, 2)
	keys := map[string]bool{}
	server := httptest.NewServer(rc.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		requests <- fmt.Sprint(r.Header.Get("X-Guuru-Event"), " ", r.Header.Get("Content-Type"), " ", string(body), err)
		keys[r.Header.Get("Idempotency-Key")] = true
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "/", http.StatusFound)
		case "/full":
			http.Error(w, "disk\x1b full", http.StatusInsufficientStorage)
		case "/long":
			io.WriteString(w, strings.Repeat("x", 1000))
		case "/created":
			w.WriteHeader(http.StatusCreated)
		default:
			io.WriteString(w, "Success!")
		}
	})))
	defer server.Close()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()

	file1, file2 := filepath.Join("..", "testdata", "example1.json"), filepath.Join("..", "testdata", "example2.json")
	body1, _ := documented(t, 1)
	body2, _ := documented(t, 2)
	const rated = "chat-rated application/json "
	for _, tc := range []struct {
		env, stdin string
		args       []string
		want       string // suffix of stdout
		status     int
		requests   []string
	}{
		{secret, "", []string{"-url", server.URL, file1, file2},
			file1 + " 200 \"Success!\"\n" + file2 + " 200 \"Success!\"\n", 0, []string{rated + body1 + "<nil>", rated + body2 + "<nil>"}},
		{secret, "[]", []string{"-url", server.URL + "/created", "-event", "message-created", "-"},
			"- 201 \"\"\n", 0, []string{"message-created application/json []<nil>"}},
		{"GUURU_SECRET=other", "{}", []string{"-url", server.URL, "-"},
			"- 400 \"Invalid request, non-matching HMAC-SHA256 received\"\n", 1, nil},
		{secret, "text", []string{"-url", server.URL, "-", file1},
			"- 400 \"Invalid request, body is not JSON\"\n" + file1 + " 200 \"Success!\"\n", 1, []string{rated + body1 + "<nil>"}},
		{secret, " {\"\": \"\xff\"}\r\n", []string{"-url", server.URL, "-"},
			"- 200 \"Success!\"\n", 0, []string{rated + " {\"\": \"\xff\"}\r\n<nil>"}},
		{secret, "{}", []string{"-url", server.URL + "/long", "-"}, "- 200 \"" + strings.Repeat("x", 200) + "\"\n", 0, []string{rated + "{}<nil>"}},
		{secret, "{}", []string{"-url", server.URL + "/full", "-"}, "- 507 \"disk\\x1b full\\n\"\n", 1, []string{rated + "{}<nil>"}},
		{secret, "{}", []string{"-url", server.URL + "/moved", "-"}, "- 302 \"\"\n", 1, []string{rated + "{}<nil>"}},
		{secret, "{}", []string{"-url", gone.URL, "-"}, "connection refused\n", 1, nil},
		{secret, "{}", []string{"-url", server.URL, "absent", "-"}, "no such file or directory\n- 200 \"Success!\"\n", 1, []string{rated + "{}<nil>"}},
		{secret, "{}", []string{"-url", "::", "-"}, "missing protocol scheme\n", 1, nil},
	} {
		stdout, stderr, status := run(t, tc.stdin, tc.env, "send", tc.args...)
		if !strings.HasSuffix(stdout, tc.want) || stderr != "" || status != tc.status {
			t.Errorf("%q: got %q, %q, status %d\nwant %q, status %d", tc.args, stdout, stderr, status, tc.want, tc.status)
		}
		for _, want := range tc.requests {
			if got := <-requests; got != want {
				t.Errorf("%q: the server received %q\nwant %q", tc.args, got, want)
			}
		}
	}
	if len(requests) > 0 || len(keys) != 9 || keys[""] {
		t.Errorf("got %d more requests and idempotency keys %v, want a key for each of 9 requests", len(requests), keys)
	}
}
