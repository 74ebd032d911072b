// Package examples_test runs the example programs as processes. It builds them
// from copies in another module, since receiver is meant to be copied. The tests
// of postgres are in the module of postgres, so that its driver never becomes a
// requirement of the package.
package examples_test

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
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

// patience bounds every wait, and the life of every process. Only a failing test
// waits that long.
const patience = 45 * time.Second

const (
	secret   = "GUURU_SECRET=secr3t"
	key      = `a "key" with \ and <é>`
	rated    = `{"user":{"name":"João"},"question":"Is it free?","status":"rated","rating":1}`
	mismatch = "400 Invalid request, non-matching HMAC-SHA256 received"
)

var dir string // of the programs and the module that they are built in

func TestMain(m *testing.M) {
	flag.Set("test.parallel", "20") // most tests wait
	status := m.Run()
	os.RemoveAll(dir)
	os.Exit(status)
}

// underRace reports whether the race detector is on.
func underRace() bool {
	info, _ := debug.ReadBuildInfo()
	return strings.Contains(fmt.Sprint(info), "-race=true")
}

// build builds the programs once and puts them first in PATH. go test's cache
// tracks only files that a test opens, so TestMain must not call it.
var build = sync.OnceValue(func() (err error) {
	if dir, err = os.MkdirTemp("", "hmacverify-"); err != nil {
		return err
	}
	module, _ := filepath.Abs("..")
	mod := fmt.Sprintf("module copies\n\ngo 1.24\n\nrequire example.com/hmacverify v0.0.0\n\n"+
		"replace example.com/hmacverify => %q\n", module)
	os.WriteFile(filepath.Join(dir, "go.mod"), []byte(mod), 0o600)
	for _, name := range []string{"receiver", "send", "gateway", "inbox", "verify", "audit"} {
		if err := os.CopyFS(filepath.Join(dir, name), os.DirFS(name)); err != nil {
			return err
		}
	}
	bin := filepath.Join(dir, "bin")
	os.Setenv("PATH", bin+string(filepath.ListSeparator)+os.Getenv("PATH"))
	cmd := exec.Command("go", "build", "-o", bin+string(filepath.Separator), "./...")
	if underRace() {
		cmd.Args = slices.Insert(cmd.Args, 2, "-race")
	}
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %v\n%s", err, out)
	}
	return nil
})

// command returns a command whose environment is the test's, without variables
// of the programs, plus env, where a comma separates variables.
func command(t *testing.T, env, name string, args ...string) *exec.Cmd {
	t.Helper()
	if err := build(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(s string) bool {
		return strings.HasPrefix(s, "GUURU_") || strings.HasPrefix(s, "PORT=")
	})
	cmd.Env = append(cmd.Env, strings.Split(env, ",")...)
	return cmd
}

func run(t *testing.T, stdin, env, name string, args ...string) (out, errs string, status int) {
	t.Helper()
	cmd := command(t, env, name, args...)
	var stdout, stderr strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	cmd.Run()
	return stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()
}

// A process is a program that listens. Its standard error goes to the file log.
type process struct {
	*exec.Cmd
	addr, log string
}

// start starts a program on a free port and returns once it listens.
func start(t *testing.T, env, name string, args ...string) *process {
	t.Helper()
	p := &process{Cmd: command(t, env, name, append(args, "-addr", "127.0.0.1:0")...)}
	log, _ := os.Create(filepath.Join(t.TempDir(), "log"))
	defer log.Close()
	p.Stderr, p.log = log, log.Name()
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	p.addr = waitFor(t, p.log, `listening addr=(.+)\n`)[1]
	return p
}

// waitFor waits until a file matches pattern, and returns the submatches.
func waitFor(t *testing.T, file, pattern string) []string {
	t.Helper()
	re, begin := regexp.MustCompile(pattern), time.Now()
	for {
		text, _ := os.ReadFile(file)
		if match := re.FindStringSubmatch(string(text)); match != nil {
			return match
		}
		if time.Since(begin) > patience {
			t.Fatalf("got\n%s\nwant %s", text, pattern)
		}
		time.Sleep(time.Millisecond)
	}
}

func (p *process) waitForLog(t *testing.T, text string) {
	t.Helper()
	waitFor(t, p.log, regexp.QuoteMeta(text))
}

func (p *process) kill() {
	p.Process.Kill()
	p.Wait()
}

func sign(body string) string { return hmacverify.Sign("secr3t", []byte(body)) }

// client uses no proxy.
var client = &http.Client{Transport: &http.Transport{}}

// post returns the response to a delivery.
func post(p *process, event, body, sig string) string {
	r, _ := http.NewRequest("POST", "http://"+p.addr, strings.NewReader(body))
	r.Header.Set("X-Guuru-Hmac-Sha256", sig)
	r.Header.Set("X-Guuru-Event", event)
	r.Header.Set("Idempotency-Key", key)
	return describe(client.Do(r))
}

func read(conn net.Conn) string {
	return describe(http.ReadResponse(bufio.NewReader(conn), nil))
}

// describe returns the status of a response, its headers but those that net/http
// adds, and its text.
func describe(resp *http.Response, err error) string {
	if err != nil {
		return "no response: " + err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return "no response: " + err.Error()
	}
	for _, name := range []string{"Date", "Content-Length", "Connection", "X-Content-Type-Options"} {
		resp.Header.Del(name)
	}
	all := fmt.Sprint(resp.StatusCode, " ", resp.Header, " ", string(text))
	added := regexp.MustCompile(`map\[(Content-Type:\[text/plain; charset=utf-8\])?\] `)
	return added.ReplaceAllString(all, "")
}

// check compares what got and want look like.
func check(t *testing.T, what string, got, want any) {
	t.Helper()
	if got, want := fmt.Sprint(got), fmt.Sprint(want); got != want {
		t.Errorf("%.99q: got %.900q\nwant %.900q", what, got, want)
	}
}

func write(t *testing.T, addr, request string) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	io.WriteString(conn, request)
	return conn.(*net.TCPConn)
}

// delivery returns a request with a valid signature, and its DeliveryID.
func delivery(body string) (request, id string) {
	request = fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\nX-Guuru-Hmac-Sha256: %s\r\n"+
		"Content-Length: %d\r\n\r\n%s", sign(body), len(body), body)
	return request, hmacverify.DeliveryID("", sign(body))
}

// begin sends a request without its body, which is {}. Once the server asks for
// the body, the request is in progress.
func begin(t *testing.T, p *process) net.Conn {
	t.Helper()
	request, _ := delivery("{}")
	request = strings.Replace(request, "\r\n", "\r\nExpect: 100-continue\r\n", 1)
	conn := write(t, p.addr, strings.TrimSuffix(request, "{}"))
	check(t, "begin", read(conn), "100 ")
	return conn
}

// A program that cannot work says why in one line, which shows no password.
func TestBadConfigurationEndsProgram(t *testing.T) {
	t.Parallel()
	taken, _ := net.Listen("tcp", ":0")
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	const (
		url   = "-upstream is not a URL like http://localhost:9000/guuru"
		names = "GUURU_SECRET, GUURU_SECRET_PREVIOUS: hmacverify: "
		empty = names + "empty secret"
	)
	dir := filepath.Join(t.TempDir(), "deliveries")
	for _, tc := range []struct{ env, command, want string }{
		{"GUURU_SECRET=", "receiver", empty},
		{"GUURU_SECRET_PREVIOUS=secr3t", "inbox -dir " + dir, empty},
		{"GUURU_SECRET=secr3t\n", "receiver", names + "secret 1 of 1 contains a line break"},
		{secret + ",GUURU_SECRET_PREVIOUS=\nold", "receiver", names + "secret 2 of 2 contains a"},
		{secret, "inbox -dir " + dir + " left", `unexpected argument "left"`},
		{secret, "receiver -addr :" + port, "address already in use"},
		{secret + ",PORT=" + port, "receiver", "-addr or PORT: listen tcp :" + port + ": bind: "},
		{secret + ",PORT=:8000", "receiver", "PORT: listen tcp: address ::8000: too many colons"},
		{"GUURU_SECRET=", "send " + os.DevNull, "GUURU_SECRET: hmacverify: empty secret"},
		{secret, "send", "no file to send"},
		{secret, "send -url http://user:hidden@localhost " + os.DevNull, "-url is not a URL like"},
		{secret, "send -url http://user:hidden%zz@localhost -", "-url is not a URL like"},
		{"GUURU_SECRET=", "verify " + os.DevNull, "no GUURU_SECRET, or no file: verify ["},
		{secret, "verify", "no GUURU_SECRET, or no file: verify [-sig SIGNATURE] FILE..."},
		{secret, "verify -unknown " + os.DevNull, "flag provided but not defined: -unknown"},
		{secret, "gateway -upstream http://", url},
		{secret, "gateway -upstream ftp://localhost", url},
		{secret, "gateway -upstream http://[", url},
		{secret, "gateway -upstream http://user:hidden@localhost", url},
		{secret, "gateway -upstream http://localhost:99999", url + ": address 99999: invalid port"},
		{"GUURU_SECRET=", "audit", "GUURU_SECRET: hmacverify: empty secret"},
		{secret, "audit left", `unexpected argument "left"`},
		{secret, "audit -url localhost:8000", "-url is not a URL like http://localhost:8000"},
		{secret, "audit -url http://user:hidden@localhost", "-url is not a URL like"},
		{secret, "audit -url http://user:hidden", "-url is not a URL like"},
		{secret, "inbox -dir=", "no such file"},
		{secret, "inbox -dir " + dir + "/inbox", "no such file"},
		{secret, "inbox -dir " + os.DevNull, "not a directory"},
		{secret, "inbox -dir /proc", "/proc"},
	} {
		args := strings.Fields(tc.command)
		out, errs, status := run(t, "", tc.env, args[0], args[1:]...)
		if status == 0 || out != "" || !strings.Contains(errs, tc.want) ||
			strings.Count(errs, "\n") != 1 || strings.Contains(errs, "hidden") {
			t.Errorf("%s %s: got status %d, %q, %q; want a nonzero status and one line with %q",
				tc.env, tc.command, status, out, errs, tc.want)
		}
	}
	_, err := os.Stat(dir)
	check(t, "no directory without an inbox", os.IsNotExist(err), true)
}

// The servers parse flags, read their secrets, listen, and stop in one way, so
// other tests of that run only one of them. Only WriteTimeout differs.
func TestServersAgree(t *testing.T) {
	t.Parallel()
	parts := regexp.MustCompile(`(?s)\taddr := .*?\n|\tflag\.Parse\(\).*?\n\t}|` +
		`\tsecrets := .*?\n\tif err != nil {.*?\n\t}|// serve returns .*?\n}\n`)
	timeout, spaces := regexp.MustCompile(`WriteTimeout: [^,]*,.*`), regexp.MustCompile(` +`)
	var shared []string
	for _, own := range [][2]string{
		{"receiver", "15 * time.Second"}, {"gateway", "45 * time.Second"}, {"inbox", "time.Minute"},
		{"postgres", "limit + 15*time.Second"},
	} {
		server, limit := own[0], "WriteTimeout: "+own[1]+", "
		text, _ := os.ReadFile(filepath.Join(server, "main.go"))
		check(t, server+": "+limit, strings.Count(string(text), limit), 1)
		text = spaces.ReplaceAll(timeout.ReplaceAll(text, nil), []byte(" ")) // gofmt aligns
		got := parts.FindAllString(string(text), -1)
		if server == "receiver" {
			shared = got
		}
		check(t, server+strings.Join(got, "\n"), slices.Equal(got, shared), true)
	}
	check(t, "shared parts", len(shared), 4)
	const idle = "IdleTimeout: 11 * time.Minute," // too long for a test
	check(t, idle, strings.Count(strings.Join(shared, ""), idle), 1)
}

// The commands of the README's quick start, on another port.
func TestQuickStart(t *testing.T) {
	t.Parallel()
	readme, _ := os.ReadFile(filepath.Join("..", "README.md"))
	receiver := regexp.MustCompile(`(?m)^(GUURU_SECRET=\S+) go run \./examples/receiver$`)
	curl := regexp.MustCompile(`(?m)^curl (?:.*\\\n)*.*$`)
	env, script := receiver.FindSubmatch(readme), string(curl.Find(readme))
	if env == nil || script == "" {
		t.Fatalf("got commands %q, %q; want the receiver and curl", env, script)
	}
	p := start(t, string(env[1]), "receiver")
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("no curl")
	}
	script = "cd .. && " + strings.Replace(script, "localhost:8000", p.addr, 1)
	out, errs, _ := run(t, "", "no_proxy=*", "sh", "-c", script)
	check(t, script+errs, out, "Success!\n")
	p.waitForLog(t, "chat-rated")
}

func TestReceiver(t *testing.T) {
	t.Parallel()
	p := start(t, secret, "receiver")
	for _, tc := range []struct{ event, body, sig, want, log string }{
		{"chat-rated", rated, sign(rated), "200 Success!",
			`INFO chat-rated user=João question="Is it free?" rating=1`},
		{"chat-rated", "{}", sign("{}"), "200 Success!", `WARN ignored event=chat-rated status=""`},
		{"chat-closed", rated, sign(rated), "200 Success!", "INFO ignored event=chat-closed"},
		{"message-created", "[]", sign("[]"), "200 Success!", "INFO ignored event=message-created"},
		{"chat-rated", "[]", sign("[]"), "500 payload not decoded\n",
			`ERROR payload not decoded event=chat-rated err="hmacverify: unexpected payload structure: `},
		{"chat-rated", "{}", sign("[]"), mismatch,
			`err="hmacverify: signature mismatch: read 2 bytes, Content-Length 2"`},
		{"chat-rated", "{}", "12345", mismatch, "malformed signature: length 5, want 64"},
		{"chat-rated", strings.Repeat(" ", 1<<20+1), sign(""), "413 Invalid request, body is too large",
			"body over limit of 1048576 bytes: "},
	} {
		check(t, tc.event+" "+tc.body, post(p, tc.event, tc.body, tc.sig), tc.want)
		p.waitForLog(t, tc.log)
	}
}

// On a signal, a program finishes the request in progress. It takes six seconds
// here, which a WriteTimeout must allow. A second signal ends it at once.
func TestShutdown(t *testing.T) {
	t.Parallel()
	for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		patient, impatient := start(t, secret, "receiver"), start(t, secret, "receiver")
		conn := begin(t, patient)
		begin(t, impatient)
		for _, p := range []*process{patient, impatient} {
			p.Process.Signal(signal)
			p.waitForLog(t, "shutting down")
		}
		time.Sleep(6 * time.Second)
		if other, err := net.Dial("tcp", patient.addr); err == nil {
			other.Close()
			t.Errorf("%v: it still listens", signal)
		}
		io.WriteString(conn, "{}")
		check(t, signal.String(), read(conn), "200 Success!")
		patient.Wait()
		impatient.Process.Signal(signal)
		impatient.Wait()
		check(t, signal.String(), patient.ProcessState.String(), "exit status 0")
		check(t, signal.String()+" twice", impatient.ProcessState.String(), "signal: "+signal.String())
	}
}

// A closed terminal sends SIGHUP, maybe twice: a program finishes the request in
// progress. Under nohup, it goes on.
func TestHangup(t *testing.T) {
	t.Parallel()
	if signal.Ignored(syscall.SIGHUP) {
		t.Skip("the tests run under nohup")
	}
	p := start(t, secret, "receiver")
	nohup := start(t, secret, "sh", "-c", `trap "" HUP && exec receiver "$@"`, "sh")
	conn := begin(t, p)
	p.Process.Signal(syscall.SIGHUP)
	nohup.Process.Signal(syscall.SIGHUP)
	p.waitForLog(t, "shutting down")
	p.Process.Signal(syscall.SIGHUP)
	time.Sleep(100 * time.Millisecond) // for a signal that ends them to do so
	io.WriteString(conn, "{}")
	check(t, "in progress", read(conn), "200 Success!")
	p.Wait()
	check(t, "twice", p.ProcessState.String(), "exit status 0")
	check(t, "under nohup", post(nohup, "chat-rated", rated, sign(rated)), "200 Success!")
}

// A server waits 10 seconds for a body, and longer for the next request: a limit
// on reading also holds for idle connections unless they have their own.
func TestReadAndIdleTimeout(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for 11 seconds")
	}
	p := start(t, secret, "receiver")
	request, _ := delivery("{}")
	idle := write(t, p.addr, request)
	check(t, "first", read(idle), "200 Success!")
	stalled := begin(t, p)
	time.Sleep(11 * time.Second)
	p.waitForLog(t, `err="hmacverify: read body: read tcp`)
	check(t, "without a body", read(stalled), "400 Invalid request, unreadable body")
	io.WriteString(idle, request)
	check(t, "on an idle connection", read(idle), "200 Success!")
}

// What is not signed can be long: it passes, and the log has the beginning.
func TestLongHeaders(t *testing.T) {
	t.Parallel()
	back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, len(r.Header.Get("X-Guuru-Event"))+len(r.Header.Get("Idempotency-Key")))
	}))
	defer back.Close()
	request, _ := delivery("{}")
	long := strings.Repeat("x", 500_000)
	request = strings.Replace(request, "\r\n",
		"\r\nX-Guuru-Event: "+long+"\r\nIdempotency-Key: "+long+"\r\n", 1)
	for _, tc := range []struct{ command, want, log string }{
		{"receiver", "200 Success!", "event=x{100}\n"},
		{"inbox -dir " + t.TempDir(), "200 Success!", "event=x{100} key=x{100}\n"},
		{"gateway -upstream " + back.URL, "200 1000000", "responded id=unknown-[0-9a-f]+ status=200\n"},
	} {
		args := strings.Fields(tc.command)
		p := start(t, secret, args[0], args[1:]...)
		check(t, tc.command, read(write(t, p.addr, request)), tc.want)
		waitFor(t, p.log, tc.log)
	}
}

// A server goes on when nothing reads its log any more. Its headers may be long.
func TestLogReaderLeaves(t *testing.T) {
	t.Parallel()
	const script = `mkfifo "$0"; head -n 1 "$0" >&2 & exec receiver "$@" 2>"$0"`
	p := start(t, secret, "sh", "-c", script, filepath.Join(t.TempDir(), "fifo"))
	time.Sleep(100 * time.Millisecond) // for head to end
	request, _ := delivery("{}")
	request = strings.Replace(request, "\r\n", "\r\nX-Long: "+strings.Repeat("x", 24<<10)+"\r\n", 1)
	for range 3 {
		check(t, "no log", read(write(t, p.addr, request)), "200 Success!")
	}
}

func TestSend(t *testing.T) {
	t.Parallel()
	rc, _ := hmacverify.New("secr3t")
	deliveries, keys := 0, map[string]bool{}
	const response = "%s %s %s\x1b %0999d" // the signature shows that the body is right
	deliver := func(w http.ResponseWriter, r *http.Request) {
		deliveries++
		keys[r.Header.Get("Idempotency-Key")] = true
		status, _ := strconv.Atoi(r.URL.Path[1:])
		w.Header().Set("Location", "/200")
		w.WriteHeader(status)
		fmt.Fprintf(w, response, r.Header.Get("X-Guuru-Event"), r.Header.Get("Content-Type"),
			r.Header.Get("X-Guuru-Hmac-Sha256"), 0)
	}
	server := httptest.NewServer(rc.Handler(http.HandlerFunc(deliver)))
	defer server.Close()
	file := filepath.Join("..", "testdata", "example1.json")
	text, _ := os.ReadFile(file)
	received := func(event, body string) string {
		text := fmt.Sprintf(response, event, "application/json", sign(body), 0)
		return fmt.Sprintf("%q\n", text[:200])
	}
	success := " 200 " + received("chat-rated", string(text))
	const notUTF8 = "{\"\": \"\xff\"}\r\n"
	for _, tc := range []struct {
		args, stdin string // the URL of the server is before args
		want        string // suffix of stdout
		status      int
	}{
		{"/200 " + file, "", file + success, 0},
		{"/201 -event chat-closed -", "[]", "- 201 " + received("chat-closed", "[]"), 0},
		{"/200 -", notUTF8, "- 200 " + received("chat-rated", notUTF8), 0},
		{"/200 - " + file, "text", "- 400 \"Invalid request, body is not JSON\"\n" + file + success, 1},
		{"/302 -", "{}", "- 302 " + received("chat-rated", "{}"), 1},
		{"/507 -", "{}", "- 507 " + received("chat-rated", "{}"), 1},
		{"/200 a\x1b\u202eb", "", `a\x1b\u202eb error: open a\x1b\u202eb: no such file or directory
`, 1},
		{"/200 absent " + file, "", "no such file or directory\n" + file + success, 1},
		{" -url http://127.0.0.1:1 -", "{}", "connection refused\n", 1},
	} {
		args := strings.Fields("-url " + server.URL + tc.args)
		out, errs, status := run(t, tc.stdin, secret, "send", args...)
		if !strings.HasSuffix(out, tc.want) || errs != "" || status != tc.status {
			t.Errorf("%q: got %q, %q, status %d\nwant %q, status %d",
				tc.args, out, errs, status, tc.want, tc.status)
		}
	}
	check(t, "deliveries and keys", []int{deliveries, len(keys)}, []int{7, 7})
	const redirect = `send -url "$0" - >/dev/full`
	_, errs, status := run(t, "{}", secret, "sh", "-c", redirect, server.URL+"/200")
	check(t, redirect+errs, []int{status, strings.Count(errs, "no space left")}, []int{1, 1})
}
