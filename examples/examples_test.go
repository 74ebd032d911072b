// Package examples_test runs the example programs as processes.
package examples_test

import (
	"bufio"
	"bytes"
	"cmp"
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
	flag.Set("test.parallel", "20") // most tests wait
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
	mod := fmt.Sprintf("module copies\n\ngo 1.24\n\nrequire example.com/hmacverify v0.0.0\n\n"+
		"replace example.com/hmacverify => %q\n", module)
	err = os.WriteFile(filepath.Join(dir, "go.mod"), []byte(mod), 0o600)
	for _, name := range []string{"receiver", "send", "gateway", "inbox", "verify"} {
		text, readErr := os.ReadFile(filepath.Join(name, "main.go"))
		err = errors.Join(err, readErr, os.Mkdir(filepath.Join(dir, name), 0o700),
			os.WriteFile(filepath.Join(dir, name, "main.go"), text, 0o600))
	}
	if err != nil {
		return err
	}
	build := exec.Command("go", "build", "-o", bin+string(filepath.Separator), "./...")
	if info, _ := debug.ReadBuildInfo(); strings.Contains(fmt.Sprint(info), "-race=true") {
		build.Args = slices.Insert(build.Args, 2, "-race")
	}
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %v\n%s", err, out)
	}
	return nil
})

// command returns a command whose environment is the test's, without variables
// of the programs, plus env. It builds the programs first.
func command(t *testing.T, env []string, name string, args ...string) *exec.Cmd {
	t.Helper()
	if err := build(); err != nil {
		t.Fatal(err)
	}
	if !strings.ContainsRune(name, filepath.Separator) {
		name = filepath.Join(bin, name)
	}
	cmd := exec.Command(name, args...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(s string) bool {
		return strings.HasPrefix(s, "GUURU_") || strings.HasPrefix(s, "PORT=")
	})
	cmd.Env = append(cmd.Env, env...)
	return cmd
}

// run runs a program to its end. The variables in env are separated by commas.
func run(t *testing.T, stdin, env, name string, args ...string) (out, errs string, status int) {
	t.Helper()
	cmd := command(t, strings.Split(env, ","), name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(patience, func() { cmd.Process.Kill() }).Stop()
	cmd.Wait()
	return stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()
}

// A process is a program that listens.
type process struct {
	*exec.Cmd
	addr   string
	stderr io.ReadCloser
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
	args = append(args, "-addr", "127.0.0.1:0")
	p := &process{Cmd: command(t, env, name, args...), ended: make(chan struct{})}
	var err error
	if p.stderr, err = p.StderrPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	addr := make(chan string, 1)
	go func() {
		for lines := bufio.NewScanner(p.stderr); lines.Scan(); {
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
	for begin := time.Now(); !strings.Contains(p.logged(), text); time.Sleep(time.Millisecond) {
		if time.Since(begin) > patience {
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

// client uses no proxy.
var client = &http.Client{Transport: &http.Transport{}}

// try posts body with sig and event. It returns the response's status and text.
func try(p *process, event, body, sig string) (string, error) {
	r, err := http.NewRequest("POST", "http://"+p.addr, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	r.Header.Set("X-Guuru-Hmac-Sha256", sig)
	r.Header.Set("X-Guuru-Event", event)
	r.Header.Set("Idempotency-Key", key)
	resp, err := client.Do(r)
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
	hex, sigErr := os.ReadFile(stem + ".sig")
	if err := errors.Join(err, sigErr); err != nil {
		t.Fatal(err)
	}
	return string(text), string(hex)
}

const mismatch = "400 Invalid request, non-matching HMAC-SHA256 received"

// A program that cannot work says why in one line, which shows no password.
func TestBadConfigurationEndsProgram(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	const (
		url       = "-upstream is not a URL like http://localhost:9000/guuru"
		lineBreak = "GUURU_SECRET: hmacverify: secret 1 of 1 contains a line break"
	)
	dir := filepath.Join(t.TempDir(), "deliveries")
	gateway := "gateway -addr 127.0.0.1:0 -upstream "
	for _, tc := range []struct{ env, command, want string }{
		{"GUURU_SECRET=", "receiver", "GUURU_SECRET: hmacverify: empty secret"},
		{"GUURU_SECRET_PREVIOUS=secr3t", "inbox -dir " + dir, "GUURU_SECRET: hmacverify: empty secret"},
		{"GUURU_SECRET=secr3t\n", gateway + "http://x", lineBreak},
		{secret + ",GUURU_SECRET_PREVIOUS=\nold", "receiver",
			"GUURU_SECRET_PREVIOUS: hmacverify: secret 2 of 2 contains a line break"},
		{"GUURU_SECRET=secr3t\r", "send " + os.DevNull, lineBreak},
		{"GUURU_SECRET=", "send " + os.DevNull, "GUURU_SECRET: hmacverify: empty secret"},
		{secret, "receiver left", `unexpected argument "left"`},
		{secret, gateway + "http://x left", `unexpected argument "left"`},
		{secret, "inbox -dir " + dir + " left", `unexpected argument "left"`},
		{secret, "receiver -addr " + taken.Addr().String(), "address already in use"},
		{secret, "send", "no file to send"},
		{secret, "gateway", url},
		{secret, gateway + "localhost:9000", url},
		{secret, gateway + "http://", url},
		{secret, gateway + "ftp://localhost", url},
		{secret, gateway + "http://[", url},
		{secret, gateway + "http://user:hidden@localhost", url},
	} {
		args := strings.Fields(tc.command)
		out, errs, status := run(t, "", tc.env, args[0], args[1:]...)
		if status == 0 || out != "" || !strings.Contains(errs, tc.want) ||
			strings.Count(errs, "\n") != 1 || strings.Contains(errs, "hidden") {
			t.Errorf("%s %s: got status %d, %q, %q; want a nonzero status and one line with %q",
				tc.env, tc.command, status, out, errs, tc.want)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Error("an inbox that did not start made its directory")
	}
}

// The servers read their secrets, listen, and stop in one way. This finds what a
// change to one of them leaves out in the others, postgres included.
func TestServersAgree(t *testing.T) {
	t.Parallel()
	common := regexp.MustCompile(`(?s)\taddr :=.*?\n|\tname, secret :=.*?name, err\)\n|// serve .*`)
	writeTimeout := regexp.MustCompile(`WriteTimeout: (.*?),\s+// .*`)
	var want string
	for name, limit := range map[string]string{
		"receiver": "15 * time.Second", "gateway": "45 * time.Second",
		"inbox": "time.Minute", "postgres": "limit + 15*time.Second",
	} {
		text, err := os.ReadFile(filepath.Join(name, "main.go"))
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Join(common.FindAllString(string(text), -1), "")
		if found := writeTimeout.FindStringSubmatch(got); found == nil || found[1] != limit {
			t.Errorf("%s: got %q, want a WriteTimeout of %s", name, found, limit)
		}
		got = writeTimeout.ReplaceAllString(got, "")
		got = regexp.MustCompile(` +//`).ReplaceAllString(got, " //") // as gofmt aligns them
		want = cmp.Or(want, got)
		if got != want || strings.Count(got, "\n") < 30 {
			t.Errorf("%s: got\n%s\nwant what another server has\n%s", name, got, want)
		}
	}
}

// servers starts each server. The backend of gateway responds with 200.
func servers(t *testing.T, env ...string) map[string]*process {
	t.Helper()
	back := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(back.Close)
	return map[string]*process{
		"receiver": start(t, env, "receiver"),
		"gateway":  start(t, env, "gateway", "-upstream", back.URL),
		"inbox":    start(t, env, "inbox", "-dir", t.TempDir()),
	}
}

// The commands of the README's quick start, on another port.
func TestQuickStart(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile(filepath.Join("..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	receiver := regexp.MustCompile(`(?m)^(GUURU_SECRET=\S+) go run \./examples/receiver$`)
	curl := regexp.MustCompile(`(?m)^curl (?:.*\\\n)*.*$`)
	env, command := receiver.FindSubmatch(readme), curl.Find(readme)
	if env == nil || command == nil {
		t.Fatalf("got commands %q, %q; want the receiver and curl", env, command)
	}
	p := start(t, []string{string(env[1])}, "receiver")
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("no curl")
	}
	sh := exec.Command("sh", "-c", strings.Replace(string(command), "localhost:8000", p.addr, 1))
	sh.Dir, sh.Env = "..", append(os.Environ(), "no_proxy=*")
	if out, err := sh.Output(); string(out) != "Success!" || err != nil {
		t.Errorf("%s: got %q, %v; want Success!", sh, out, err)
	}
	p.waitForLog(t, "chat-rated")
}

// Without -addr, a server listens on PORT.
func TestPort(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	_, errs, status := run(t, "", secret+",PORT="+port, "receiver")
	if want := "listen tcp :" + port + ": bind: "; status == 0 || !strings.Contains(errs, want) {
		t.Errorf("got status %d, %q; want %q", status, errs, want)
	}
}

func TestReceiver(t *testing.T) {
	t.Parallel()
	p := start(t, []string{secret}, "receiver")
	body, sig := documented(t, 2)
	bodySig := func(body string) string { return hmacverify.Sign("secr3t", []byte(body)) }
	for _, tc := range []struct{ event, body, sig, want, log string }{
		{"chat-rated", body, sig, "200 Success!",
			`INFO chat-rated user=João question="Is shipping free for Portugal?" status=rated rating=1`},
		{"chat-closed", body, sig, "200 Success!", "INFO ignored event=chat-closed"},
		{"message-created", "[]", bodySig("[]"), "200 Success!", "INFO ignored event=message-created"},
		{"chat-rated", "[]", bodySig("[]"), "500 payload not decoded\n", "signature=" + bodySig("[]")},
		{"chat-rated", body, strings.Repeat("0", 64), mismatch,
			`err="hmacverify: signature mismatch: read 344 bytes, Content-Length 344"`},
		{"chat-rated", body, sig[:5], mismatch,
			`err="hmacverify: malformed signature: length 5, want 64"`},
		{"chat-rated", strings.Repeat(" ", 1<<20+1), sig, "413 Invalid request, body is too large",
			"body over limit of 1048576 bytes: "},
	} {
		if got, err := try(p, tc.event, tc.body, tc.sig); got != tc.want || err != nil {
			t.Errorf("%s %.20s: got %q, %v; want %q", tc.event, tc.body, got, err, tc.want)
		}
		p.waitForLog(t, tc.log)
	}
}

func TestPreviousSecret(t *testing.T) {
	t.Parallel()
	body, sig := documented(t, 1)
	ps := servers(t, "GUURU_SECRET=new", "GUURU_SECRET_PREVIOUS=secr3t")
	for name, p := range ps {
		for sig, want := range map[string]string{
			sig:                                      "200",
			hmacverify.Sign("new", []byte(body)):     "200",
			hmacverify.Sign("another", []byte(body)): "400",
		} {
			if got, err := try(p, "chat-rated", body, sig); !strings.HasPrefix(got, want) || err != nil {
				t.Errorf("%s: got %q, %v; want %s", name, got, err, want)
			}
		}
		p.waitForLog(t, `err="hmacverify: signature mismatch`)
	}
	gateway := ps["gateway"]
	gateway.waitForLog(t, "signed with the previous secret")
	note := regexp.MustCompile(`id=\S+-(\w+) note="signed with the previous secret"`)
	notes := note.FindAllStringSubmatch(gateway.logged(), -1)
	if len(notes) != 1 || notes[0][1] != sig {
		t.Errorf("got notes %q, want one for %s\n%s", notes, sig, gateway.logged())
	}
}

// begin sends a request without its body. Once the server asks for the body, the
// request is in progress.
func begin(t *testing.T, p *process, body, sig string) (*net.TCPConn, *bufio.Reader) {
	t.Helper()
	conn := write(t, p.addr, fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"+
		"X-Guuru-Hmac-Sha256: %s\r\nContent-Length: %d\r\n\r\n", sig, len(body)))
	responses := bufio.NewReader(conn)
	if line, err := responses.ReadString('\n'); line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("%s: got %q, %v; want 100 Continue", p, line, err)
	}
	responses.ReadString('\n')
	return conn, responses
}

// On a signal, a program finishes the request in progress. It takes two seconds
// here, which a WriteTimeout must allow. A second signal ends it at once.
func TestShutdown(t *testing.T) {
	t.Parallel()
	body, sig := documented(t, 1)
	for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		conns, responses := map[string]net.Conn{}, map[string]*bufio.Reader{}
		patient, impatient := servers(t, secret), servers(t, secret)
		for name, p := range patient {
			conns[name], responses[name] = begin(t, p, body, sig)
			begin(t, impatient[name], body, sig)
			p.Process.Signal(signal)
			impatient[name].Process.Signal(signal)
		}
		time.Sleep(2 * time.Second)
		for name, p := range patient {
			p.waitForLog(t, "shutting down")
			if other, err := net.Dial("tcp", p.addr); err == nil {
				other.Close()
				t.Errorf("%s, %v: it still listens", name, signal)
			}
			io.WriteString(conns[name], body)
			if line, err := responses[name].ReadString('\n'); !strings.HasPrefix(line, "HTTP/1.1 20") {
				t.Errorf("%s, %v: got %q, %v; want 2xx", name, signal, line, err)
			}
			if got := p.wait(t); got != 0 {
				t.Errorf("%s, %v: got status %d, want 0\n%s", name, signal, got, p.logged())
			}
			begun := time.Now()
			impatient[name].Process.Signal(signal)
			if got := impatient[name].wait(t); got == 0 || time.Since(begun) > 5*time.Second {
				t.Errorf("%s, %v: a second signal does not end it at once", name, signal)
			}
		}
	}
}

// A server waits 10 seconds for a body, and longer for the next request: a limit
// on reading also holds for idle connections unless they have their own.
func TestReadAndIdleTimeout(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for 11 seconds")
	}
	body, sig := documented(t, 1)
	request, _ := delivery("{}")
	idle, stalled, first := map[string]*net.TCPConn{}, map[string]*bufio.Reader{}, map[string]string{}
	ps := servers(t, secret)
	for name, p := range ps {
		idle[name] = write(t, p.addr, request)
		first[name] = read(t, idle[name])
		_, stalled[name] = begin(t, p, body, sig)
	}
	time.Sleep(11 * time.Second)
	for name, p := range ps {
		p.waitForLog(t, `err="hmacverify: read body: read tcp`)
		if line, _ := stalled[name].ReadString('\n'); !strings.HasPrefix(line, "HTTP/1.1 400") {
			t.Errorf("%s: got %q without a body, want 400", name, line)
		}
		io.WriteString(idle[name], request)
		if got := read(t, idle[name]); got != first[name] {
			t.Errorf("%s: got %q on an idle connection, want %q", name, got, first[name])
		}
	}
}

// A server goes on when nothing reads its log any more. Its headers may be long.
func TestLogReaderLeaves(t *testing.T) {
	t.Parallel()
	for name, p := range servers(t, secret) {
		p.stderr.Close()
		for range 3 {
			request, _ := delivery("{}")
			request = strings.Replace(request, "\r\n", "\r\nX-Long: "+strings.Repeat("x", 24<<10)+"\r\n", 1)
			if got := read(t, write(t, p.addr, request)); !strings.HasPrefix(got, "200") {
				t.Errorf("%s: got %q, want 200", name, got)
			}
		}
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
	deliver := func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		requests <- fmt.Sprint(r.Header["X-Guuru-Event"], r.Header["Content-Type"], string(body), err)
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
	}
	server := httptest.NewServer(rc.Handler(http.HandlerFunc(deliver)))
	defer server.Close()
	file := filepath.Join("..", "testdata", "example1.json")
	body, _ := documented(t, 1)
	const success, rated = " 200 \"Success!\"\n", "[chat-rated] [application/json]"
	for _, tc := range []struct {
		args, stdin string // the URL of the server is before args
		want        string // suffix of stdout
		status      int
		request     string // the last one that the server receives
	}{
		{" " + file, "", file + success, 0, rated + body + "<nil>"},
		{"/created -event chat-closed -", "[]", "- 201 \"\"\n", 0,
			"[chat-closed] [application/json][]<nil>"},
		{" -", "{\"\": \"\xff\"}\r\n", "-" + success, 0, rated + "{\"\": \"\xff\"}\r\n<nil>"},
		{" - " + file, "text", "- 400 \"Invalid request, body is not JSON\"\n" + file + success, 1,
			rated + body + "<nil>"},
		{"/long -", "{}", "- 200 \"" + strings.Repeat("x", 200) + "\"\n", 0, rated + "{}<nil>"},
		{"/full -", "{}", "- 507 \"disk\\x1b full\\n\"\n", 1, rated + "{}<nil>"},
		{"/moved -", "{}", "- 302 \"\"\n", 1, rated + "{}<nil>"},
		{" absent -", "{}", "no such file or directory\n-" + success, 1, rated + "{}<nil>"},
		{" -url http://127.0.0.1:1 -", "{}", "connection refused\n", 1, ""},
		{" -url :: -", "{}", "missing protocol scheme\n", 1, ""},
	} {
		args := strings.Fields("-url " + server.URL + tc.args)
		out, errs, status := run(t, tc.stdin, secret, "send", args...)
		if !strings.HasSuffix(out, tc.want) || errs != "" || status != tc.status {
			t.Errorf("%q: got %q, %q, status %d\nwant %q, status %d",
				tc.args, out, errs, status, tc.want, tc.status)
		}
		select {
		case got := <-requests:
			if got != tc.request {
				t.Errorf("%q: the server received %q\nwant %q", tc.args, got, tc.request)
			}
		default:
			if tc.request != "" {
				t.Errorf("%q: the server received nothing", tc.args)
			}
		}
	}
	if len(requests) > 0 || len(keys) != 8 || keys[""] {
		t.Errorf("got %d more requests and keys %v, want a key for each of 8", len(requests), keys)
	}
}
