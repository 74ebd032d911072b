// Package examples_test runs the example programs as processes.
package examples_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
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
const patience = 30 * time.Second

const (
	secret = "GUURU_SECRET=secr3t"
	key    = `a "key" with \ and <é>`
)

// bin is the directory of the programs.
var bin string

// TestMain builds the programs from copies of their main.go in another module.
func TestMain(m *testing.M) {
	if os.Getenv("BACKEND") != "" {
		backend()
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "hmacverify-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		module, err := filepath.Abs("..")
		if err != nil {
			panic(err)
		}
		mod := "module copies\n\ngo 1.24\n\nrequire example.com/hmacverify v0.0.0\n\nreplace example.com/hmacverify => " + strconv.Quote(module) + "\n"
		err = os.WriteFile(filepath.Join(dir, "go.mod"), []byte(mod), 0o600)
		for _, name := range []string{"receiver", "send", "gateway", "inbox"} {
			text, readErr := os.ReadFile(filepath.Join(name, "main.go"))
			err = errors.Join(err, readErr, os.Mkdir(filepath.Join(dir, name), 0o700),
				os.WriteFile(filepath.Join(dir, name, "main.go"), text, 0o600))
		}
		if err != nil {
			panic(err)
		}
		bin = filepath.Join(dir, "bin")
		build := exec.Command("go", "build", "-o", bin+string(filepath.Separator), "./...")
		if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
			build.Args = slices.Insert(build.Args, 2, "-race")
		}
		build.Dir = dir
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// command returns a command whose environment is the test's, without GUURU_
// variables, plus env.
func command(env []string, name string, args ...string) *exec.Cmd {
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
	cmd := command([]string{env}, name, args...)
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
	addr   string
	stdout *bufio.Reader
	ended  chan struct{}

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
	p := &process{Cmd: command(env, name, append(args, "-addr", "127.0.0.1:0")...), ended: make(chan struct{})}
	stdout, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.Stdout, p.stdout = w, bufio.NewReader(stdout)
	stderr, err := p.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	t.Cleanup(func() {
		p.kill()
		stdout.Close()
	})
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
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	file := filepath.Join(t.TempDir(), "inbox.jsonl")
	listens := map[string][]string{
		"receiver": {"-addr", "127.0.0.1:0"},
		"gateway":  {"-addr", "127.0.0.1:0", "-upstream", "http://localhost:9000"},
		"inbox":    {"-addr", "127.0.0.1:0", "-file", file},
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
			row{name, "GUURU_SECRET=secr3t\n", args, "GUURU_SECRET: hmacverify: secret 1 of 1 ends in a line break"})
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
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Error("an inbox that did not start created its file")
	}
}

// The commands of the README's quick start, on another port.
func TestQuickStart(t *testing.T) {
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
		{"chat-rated", body, sig, "200 Success!", `INFO chat-rated user=João question="Is shipping free for Portugal?" rating=1`},
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
	env := []string{"GUURU_SECRET=new", "GUURU_SECRET_PREVIOUS=secr3t"}
	body, sig := documented(t, 1)
	back := start(t, []string{"BACKEND=1"}, os.Args[0])
	gateway := start(t, env, "gateway", "-upstream", "http://"+back.addr)
	inbox := start(t, env, "inbox", "-file", filepath.Join(t.TempDir(), "inbox.jsonl"))
	for _, p := range []*process{gateway, inbox} {
		for sig, want := range map[string]string{sig: "20", hmacverify.Sign("new", []byte(body)): "20", hmacverify.Sign("another", []byte(body)): "400"} {
			if got, err := try(p, "chat-rated", body, sig); !strings.HasPrefix(got, want) || err != nil {
				t.Errorf("%s: got %q, %v; want %s", p, got, err, want)
			}
		}
		p.waitForLog(t, `err="hmacverify: signature mismatch`)
	}
	gateway.waitForLog(t, "signed with the previous secret")
	if n := strings.Count(gateway.logged(), "signed with the previous secret"); n != 1 {
		t.Errorf("got %d deliveries signed with the previous secret in the log, want 1\n%s", n, gateway.logged())
	}
}

// On a signal, a program finishes the request in progress.
func TestShutdown(t *testing.T) {
	back := start(t, []string{"BACKEND=1"}, os.Args[0])
	body, sig := documented(t, 1)
	for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		for _, p := range []*process{
			start(t, []string{secret}, "inbox", "-file", filepath.Join(t.TempDir(), "inbox.jsonl")),
			start(t, []string{secret}, "gateway", "-upstream", "http://"+back.addr),
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

func TestSend(t *testing.T) {
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
	if len(requests) > 0 || len(keys) != 7 || keys[""] {
		t.Errorf("got %d more requests and idempotency keys %v, want a key for each of 7 requests", len(requests), keys)
	}
}

// A received is a request at the backend.
type received struct {
	Method, Host, URI, Body string
	Header                  http.Header
	ContentLength           int64
}

// backend turns the test binary into a backend. It prints each request,
// responds with its number, and accepts every upgrade.
func backend() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Fprintf(os.Stderr, "listening addr=%s\n", listener.Addr())
	n := 0
	panic(http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(err)
		}
		json.NewEncoder(os.Stdout).Encode(received{r.Method, r.Host, r.RequestURI, string(body), r.Header, r.ContentLength})
		n++
		w.Header()["X-Backend"] = []string{"one", "two"}
		if r.Header.Get("Upgrade") != "" {
			w.Header().Set("Connection", "Upgrade")
			w.Header().Set("Upgrade", r.Header.Get("Upgrade"))
			w.WriteHeader(http.StatusSwitchingProtocols)
			return
		}
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprintf(w, "taken: %d", n)
	})))
}

// send writes request. It returns the response's status, X-Backend headers, and
// text.
func send(t *testing.T, p *process, request string) string {
	t.Helper()
	conn, err := net.Dial("tcp", p.addr)
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
	return fmt.Sprintf("%d %q %s", resp.StatusCode, resp.Header["X-Backend"], text)
}

func TestGateway(t *testing.T) {
	back := start(t, []string{"BACKEND=1"}, os.Args[0])
	gateway := start(t, []string{secret}, "gateway", "-upstream", "http://"+back.addr+"/hooks//a%2Fb?x=1;y=%zz")
	body, sig := documented(t, 2)
	signed := "X-Guuru-Hmac-Sha256: " + sig + "\r\n"
	length := fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)
	chunked := fmt.Sprintf("Transfer-Encoding: chunked\r\nTrailer: X-Guuru-Event\r\n\r\n5\r\n%s\r\n%x\r\n%s\r\n0\r\nX-Guuru-Event: trailer\r\n\r\n", body[:5], len(body)-5, body[5:])
	want := received{
		Method: "POST", Host: back.addr, URI: "/hooks//a%2Fb?x=1;y=%zz", Body: body, ContentLength: int64(len(body)),
		Header: http.Header{
			"Content-Length":      {strconv.Itoa(len(body))},
			"Content-Type":        {"application/json"},
			"Idempotency-Key":     {"a key"},
			"X-Guuru-Event":       {"chat-rated", "chat-closed"},
			"X-Guuru-New":         {"new"},
			"X-Guuru-Hmac-Sha256": {sig},
		},
	}
	passed := "content-type: application/json\r\nIdempotency-Key: a key\r\nX-Guuru-Event: chat-rated\r\nX-Guuru-Event: chat-closed\r\nX-Guuru-New: new\r\n"
	taken := 0
	for _, tc := range []struct{ name, request, want string }{
		{"plain", "POST / HTTP/1.1\r\nHost: x\r\n" + passed + signed + length, "202"},
		{"chunks and a trailer", "POST / HTTP/1.1\r\nHost: x\r\n" + passed + signed + chunked, "202"},
		{"another path", "POST /../admin?x=2#y HTTP/1.1\r\nHost: x\r\n" + passed + signed + length, "202"},
		{"another URL", "POST http://user:pw@elsewhere.example/admin HTTP/1.1\r\nHost: x\r\n" + passed + signed + length, "202"},
		{"upgrade", "POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + passed + signed + length, "202"},
		{"headers that proxies remove", "POST / HTTP/1.1\r\nHost: x\r\nConnection: X-Guuru-Event, Idempotency-Key, Content-Type\r\nTe: trailers\r\n" + passed + signed + length, "202"},
		{"other headers", "POST / HTTP/1.1\r\nHost: x\r\nAuthorization: Basic x\r\nCookie: a=b\r\nForwarded: for=192.0.2.1\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\nUser-Agent: Guuru\r\nAccept-Encoding: gzip\r\nX_Guuru_Event: x\r\nX-Guuru-Hmac_Sha256: x\r\nX-Guuru: x\r\nX-Http-Method-Override: DELETE\r\n" + passed + signed + length, "202"},
		{"forged", "POST / HTTP/1.1\r\nHost: x\r\n" + signed + strings.ToUpper(length), "400"},
		{"unsigned", "POST / HTTP/1.1\r\nHost: x\r\n" + length, "400"},
		{"GET", "GET / HTTP/1.1\r\nHost: x\r\n" + signed + length, "405"},
		{"CONNECT", "CONNECT x:1 HTTP/1.1\r\nHost: x\r\n" + signed + "\r\n", "405"},
	} {
		if tc.want == "202" {
			taken++
			tc.want = fmt.Sprintf(`202 ["one" "two"] taken: %d`, taken)
		}
		if got := send(t, gateway, tc.request); !strings.HasPrefix(got, tc.want) {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
		if !strings.HasPrefix(tc.want, "202") {
			continue
		}
		line, err := back.stdout.ReadBytes('\n')
		if err != nil {
			t.Fatal(err)
		}
		var got received
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: the backend received %+v\nwant %+v", tc.name, got, want)
		}
	}

	back.kill()
	if got := post(t, gateway, body); got != "502 " {
		t.Errorf("without a backend: got %q, want 502", got)
	}
	gateway.waitForLog(t, "signature="+sig)
}

// A backend may close an idle connection just as a delivery arrives. The
// gateway then sends it again on a new connection.
func TestBackendClosesIdleConnection(t *testing.T) {
	backend, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Close()
	gateway := start(t, []string{secret}, "gateway", "-upstream", "http://"+backend.Addr().String())
	body, _ := documented(t, 1)
	go func() {
		for n := 0; ; n++ {
			conn, err := backend.Accept()
			if err != nil {
				return
			}
			requests := bufio.NewReader(conn)
			for responses := 0; ; responses++ {
				r, err := http.ReadRequest(requests)
				if err != nil {
					break
				}
				if got, err := io.ReadAll(r.Body); string(got) != body || err != nil {
					t.Errorf("connection %d: the backend received %q, %v; want %q, nil", n, got, err, body)
				}
				if n == 0 && responses == 1 {
					break // the second request on the first connection
				}
				fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d", n)
			}
			conn.Close()
		}
	}()
	for _, want := range []string{"200 0", "200 1"} {
		if got := post(t, gateway, body); got != want {
			t.Errorf("got %q, want %q\n%s", got, want, gateway.logged())
		}
	}
}

// inboxFile returns a new name, and a function that checks every line of the
// file and returns the events and bodies.
func inboxFile(t *testing.T) (name string, read func() []string) {
	name = filepath.Join(t.TempDir(), "inbox.jsonl")
	return name, func() (deliveries []string) {
		t.Helper()
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.SplitAfterSeq(string(text), "\n") {
			if line == "" { // after the last newline
				continue
			}
			var d struct {
				Time                             time.Time
				Event, IdempotencyKey, Signature string
				Body                             []byte
			}
			if err := json.Unmarshal([]byte(line), &d); err != nil || !strings.HasSuffix(line, "\n") {
				t.Fatalf("not a whole line: %q, %v", line, err)
			}
			if err := hmacverify.Verify("secr3t", d.Body, d.Signature); err != nil {
				t.Errorf("%q: got signature error %v, want nil", line, err)
			}
			if d.IdempotencyKey != key || time.Since(d.Time) > time.Hour {
				t.Errorf("%q: want the key that was sent and the current time", line)
			}
			deliveries = append(deliveries, d.Event+" "+string(d.Body))
		}
		return deliveries
	}
}

func TestInbox(t *testing.T) {
	file, read := inboxFile(t)
	example, _ := documented(t, 2)
	bodies := []string{example, `{}`, " {\n} ", "\"not UTF-8: \xff, \xc3\"", `"` + strings.Repeat("x", 100_000) + `"`}
	var want []string
	for _, body := range bodies {
		want = append(want, "chat-rated "+body)
	}
	for _, when := range []string{"first", "after a restart"} {
		p := start(t, []string{secret}, "inbox", "-file", file)
		for range 2 {
			for _, body := range bodies {
				if got := post(t, p, body); got != "200 Success!" {
					t.Errorf("%s: %.40q: got %q, want 200", when, body, got)
				}
			}
		}
		if got := read(); !slices.Equal(got, want) {
			t.Errorf("%s: got %.40q\nwant %.40q", when, got, want)
		}
		if got, err := try(p, "chat-rated", "3", strings.Repeat("0", 64)); got != mismatch || err != nil {
			t.Errorf("forged: got %q, %v; want %q", got, err, mismatch)
		}
		p.kill()
	}
	if info, err := os.Stat(file); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v, %v; want a file for its owner only", info.Mode(), err)
	}
}

// The same body under another known event is a new line. All unknown events
// together add one.
func TestInboxEvents(t *testing.T) {
	file, read := inboxFile(t)
	for range 2 {
		p := start(t, []string{secret}, "inbox", "-file", file)
		for _, event := range []string{
			"chat-assigned", "chat-opened", "chat-closed", "chat-reopened", "chat-transferred", "chat-rated", "message-created",
			"new-\xff\"\\<event>", "chatRated", "", "chat-rated", "invented",
		} {
			if got, err := try(p, event, "{}", hmacverify.Sign("secr3t", []byte("{}"))); got != "200 Success!" || err != nil {
				t.Errorf("%q: got %q, %v; want 200", event, got, err)
			}
		}
		p.kill()
	}
	want := []string{"chat-assigned {}", "chat-opened {}", "chat-closed {}", "chat-reopened {}", "chat-transferred {}", "chat-rated {}", "message-created {}", "new-\ufffd\"\\<event> {}"}
	if got := read(); !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

// Wherever a crash cuts a line short, a start drops it and nothing else.
func TestInboxDropsLineCutShort(t *testing.T) {
	file, read := inboxFile(t)
	p := start(t, []string{secret}, "inbox", "-file", file)
	for _, event := range []string{"chat-rated", "chat-closed", "new-\"\\<\xffevent"} {
		if got, err := try(p, event, `{"a":1}`, hmacverify.Sign("secr3t", []byte(`{"a":1}`))); got != "200 Success!" || err != nil {
			t.Fatal(got, err)
		}
	}
	p.kill()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(text, []byte("\n"))
	for first := range 3 { // the line that is cut short
		whole := bytes.Join(lines[:first], nil)
		for cut := 1; cut < len(lines[first]); cut += 1 + rand.Intn(40) {
			if err := os.WriteFile(file, slices.Concat(whole, lines[first][:cut]), 0o600); err != nil {
				t.Fatal(err)
			}
			p := start(t, []string{secret}, "inbox", "-file", file)
			if !strings.Contains(p.logged(), fmt.Sprintf("dropped a line that was cut short file=%s bytes=%d", file, cut)) {
				t.Errorf("%s: got log %q, want the line dropped", lines[first][:cut], p.logged())
			}
			p.kill()
			if got, err := os.ReadFile(file); !bytes.Equal(got, whole) || err != nil {
				t.Fatalf("%s: got file %q, %v; want %q", lines[first][:cut], got, err, whole)
			}
		}
	}
	if err := os.WriteFile(file, text[:len(text)-1], 0o600); err != nil {
		t.Fatal(err)
	}
	p = start(t, []string{secret}, "inbox", "-file", file)
	if got := post(t, p, "{}"); got != "200 Success!" || len(read()) != 3 {
		t.Errorf("got %q and %q, want 200 and 3 lines", got, read())
	}
}

// A file that an inbox did not write stays as it is.
func TestInboxLeavesOtherFiles(t *testing.T) {
	file, _ := inboxFile(t)
	p := start(t, []string{secret}, "inbox", "-file", file)
	post(t, p, "{}")
	p.kill()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	line := string(text)
	example, _ := documented(t, 1)
	const other = "it is not an inbox"
	for name, tc := range map[string]struct{ text, want string }{
		"payload":                 {example, other},
		"payload and newline":     {example + "\n", other},
		"log":                     {`{"time":"2026-11-24T09:00:00Z","level":"INFO","msg":"x"}` + "\n", other},
		"log, cut short":          {`{"time":"2026-11-24T09:00:00Z","level":"INF`, other},
		"text":                    {"Dear reader", other},
		"text within a line":      {`{"time":"2026-11-24T09:00:00Z","event":"x` + "\nDear reader\n", other},
		"text within a key":       {line + line[:strings.Index(line, `"idempotencyKey":"`)+19] + "\n\"Dear\nreader", other},
		"newline":                 {"\n", other},
		"binary":                  {"\x7fELF\x00\x01\x02", other},
		"text after a line":       {line + "Dear reader", "after byte " + strconv.Itoa(len(line)) + ", " + other},
		"text between lines":      {line + "Dear reader\n" + line, other},
		"two lines in one":        {line[:50] + line, other},
		"field of another name":   {strings.Replace(line, `"event"`, `"topic"`, 1), other},
		"another field":           {strings.Replace(line, `"}`, `","x":1}`, 1), other},
		"body not in Base64":      {strings.Replace(line, `"body":"e`, `"body":"{`, 1), other},
		"NUL bytes":               {strings.Repeat("\x00", 4096), "NUL bytes after byte 0"},
		"NUL bytes after a line":  {line + strings.Repeat("\x00", 100), "NUL bytes after byte " + strconv.Itoa(len(line))},
		"NUL bytes within a line": {line + line[:40] + "\x00\x00", "NUL bytes after byte " + strconv.Itoa(len(line))},
	} {
		if err := os.WriteFile(file, []byte(tc.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, stderr, status := run(t, "", secret, "inbox", "-addr", "127.0.0.1:0", "-file", file)
		if status == 0 || !strings.Contains(stderr, tc.want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: got status %d, %q; want a nonzero status and %q", name, status, stderr, tc.want)
		}
		if got, err := os.ReadFile(file); string(got) != tc.text || err != nil {
			t.Errorf("%s: got file %q, %v; want %q", name, got, err, tc.text)
		}
	}
	for name, want := range map[string]string{t.TempDir(): "is a directory", filepath.Join(file, "absent"): "not a directory"} {
		_, stderr, status := run(t, "", secret, "inbox", "-addr", "127.0.0.1:0", "-file", name)
		if status == 0 || !strings.Contains(stderr, want) {
			t.Errorf("%s: got status %d, %q; want a nonzero status and %q", name, status, stderr, want)
		}
	}
}

// A failed write is 500 and leaves no partial line. The next one that fits
// succeeds. A limit on file size stands in for a full disk.
func TestInboxDiskFull(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("ulimit -f counts in other units elsewhere")
	}
	file, read := inboxFile(t)
	p := start(t, []string{secret}, "/bin/sh", "-c", `ulimit -f 4 && exec "$0" "$@"`, filepath.Join(bin, "inbox"), "-file", file) // 2 KiB
	small, large := `"`+strings.Repeat("s", 300)+`"`, `"`+strings.Repeat("l", 2000)+`"`
	for _, tc := range []struct {
		body, want string
		file       []string
	}{
		{small, "200 Success!", []string{"chat-rated " + small}},
		{large, "500 not stored\n", []string{"chat-rated " + small}},
		{large, "500 not stored\n", []string{"chat-rated " + small}},
		{small, "200 Success!", []string{"chat-rated " + small}},
		{"{}", "200 Success!", []string{"chat-rated " + small, "chat-rated {}"}},
	} {
		if got := post(t, p, tc.body); got != tc.want {
			t.Errorf("%.10s: got %q, want %q", tc.body, got, tc.want)
		}
		if got := read(); !slices.Equal(got, tc.file) {
			t.Errorf("%.10s: got file %.20q, want %.20q", tc.body, got, tc.file)
		}
	}
	p.kill()
	p = start(t, []string{secret}, "inbox", "-file", file)
	if got := post(t, p, large); got != "200 Success!" || len(read()) != 3 {
		t.Errorf("with room again: got %q and %d lines, want 200 and 3", got, len(read()))
	}
}

// A sync that fails is 500 and leaves no line. The next one succeeds.
func TestInboxSyncFails(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("no strace to inject an error with")
	}
	file, read := inboxFile(t)
	p := start(t, []string{secret}, "inbox", "-file", file)
	inject := exec.Command(strace, "-f", "-p", strconv.Itoa(p.Process.Pid), "-e", "trace=fsync", "-e", "inject=fsync:error=EIO:when=1")
	stderr, err := inject.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := inject.Start(); err != nil {
		t.Fatal(err)
	}
	defer inject.Wait()
	defer inject.Process.Kill()
	if line, err := bufio.NewReader(stderr).ReadString('\n'); !strings.Contains(line, "attached") {
		t.Skipf("strace cannot trace here: %s %v", line, err)
	}
	go io.Copy(io.Discard, stderr)
	// The first sync of each thread fails.
	failed := 0
	for post(t, p, "{}") == "500 not stored\n" {
		failed++
		if got := read(); len(got) > 0 {
			t.Errorf("after a failed sync, got %q in the file, want nothing", got)
		}
	}
	if got := read(); failed == 0 || !slices.Equal(got, []string{"chat-rated {}"}) {
		t.Errorf("got %d failed syncs and %q in the file, want at least 1 and one delivery", failed, got)
	}
	p.waitForLog(t, "input/output error")
}

// load posts distinct bodies to p from 8 senders at once until p ends. It
// returns those that got 200.
func load(t *testing.T, p *process, prefix string) (accepted []string) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	for s := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for n := 0; ; n++ {
				body := fmt.Sprintf(`{"id":"%s-%d-%d"}`, prefix, s, n)
				response, err := try(p, "chat-rated", body, hmacverify.Sign("secr3t", []byte(body)))
				if err != nil {
					return // the process has ended
				}
				if response != "200 Success!" {
					t.Errorf("got %q, want 200", response)
					return
				}
				mu.Lock()
				accepted = append(accepted, "chat-rated "+body)
				mu.Unlock()
			}
		}()
	}
	wg.Wait()
	http.DefaultClient.CloseIdleConnections()
	return accepted
}

// wantOnce checks that got has each of accepted once, and nothing twice.
func wantOnce(t *testing.T, got, accepted []string) {
	t.Helper()
	count := map[string]int{}
	for _, d := range got {
		if count[d]++; count[d] > 1 {
			t.Errorf("%s is in the file %d times", d, count[d])
		}
	}
	for _, d := range accepted {
		if count[d] != 1 {
			t.Errorf("%s got 200 and is in the file %d times", d, count[d])
		}
	}
}

func TestInboxKilledUnderLoad(t *testing.T) {
	const kills = 20
	file, read := inboxFile(t)
	var accepted []string
	for kill := range kills {
		p := start(t, []string{secret}, "inbox", "-file", file)
		first := fmt.Sprintf(`{"kill":%d}`, kill)
		if got := post(t, p, first); got != "200 Success!" {
			t.Errorf("got %q, want 200", got)
		}
		time.AfterFunc(time.Duration(rand.Intn(50))*time.Millisecond, p.kill)
		accepted = append(accepted, "chat-rated "+first)
		accepted = append(accepted, load(t, p, strconv.Itoa(kill))...)
	}
	p := start(t, []string{secret}, "inbox", "-file", file)
	for _, d := range accepted[:min(200, len(accepted))] { // as if the 200 had been lost
		if got := post(t, p, strings.TrimPrefix(d, "chat-rated ")); got != "200 Success!" {
			t.Errorf("%s again: got %q, want 200", d, got)
		}
	}
	p.kill()
	wantOnce(t, read(), accepted)
	if len(accepted) == kills {
		t.Error("got no deliveries under load")
	}
}

// An inbox exits before it writes if another process has written.
func TestInboxSeesOtherWriter(t *testing.T) {
	file, read := inboxFile(t)
	p := start(t, []string{secret}, "inbox", "-file", file)
	post(t, p, "{}")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	both := slices.Concat(text, bytes.Replace(text, []byte("chat-rated"), []byte("chat-closed"), 1))
	if err := os.WriteFile(file, both, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := try(p, "chat-opened", "{}", hmacverify.Sign("secr3t", []byte("{}"))); err == nil {
		t.Errorf("got %q, want no response", got)
	}
	if status := p.wait(t); status == 0 || !strings.Contains(p.logged(), file+": another process writes to it") {
		t.Errorf("got status %d, log %q; want one that names the other writer", status, p.logged())
	}
	if got, want := read(), []string{"chat-rated {}", "chat-closed {}"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A second start on the same address ends without touching the file. On another
// address, one of the two processes ends. What either accepted stays.
func TestInboxStartedTwiceUnderLoad(t *testing.T) {
	file, read := inboxFile(t)
	first := start(t, []string{secret}, "inbox", "-file", file)
	var accepted [2][]string
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		accepted[0] = load(t, first, "first")
	}()
	for range 10 {
		_, stderr, status := run(t, "", secret, "inbox", "-addr", first.addr, "-file", file)
		if status == 0 || !strings.Contains(stderr, "address already in use") {
			t.Errorf("on the same address: got status %d, %q; want a nonzero status", status, stderr)
		}
	}
	other := launch(t, []string{secret}, "inbox", "-file", file)
	for other.addr == "" { // it found the first one writing, and ended
		other = launch(t, []string{secret}, "inbox", "-file", file)
	}
	wg.Add(1)
	go func() {
		defer wg.Done()
		accepted[1] = load(t, other, "other")
	}()
	select {
	case <-first.ended:
	case <-other.ended:
	case <-time.After(patience):
		t.Error("two processes use one file")
	}
	time.Sleep(50 * time.Millisecond) // let the other one go on
	first.kill()
	other.kill()
	wg.Wait()
	if log := first.logged() + other.logged(); !strings.Contains(log, file+": another process writes to it") {
		t.Errorf("got log %q, want one that names the other writer", log)
	}
	wantOnce(t, read(), slices.Concat(accepted[0], accepted[1]))
	if len(accepted[0]) == 0 {
		t.Error("got no deliveries under load")
	}
}
