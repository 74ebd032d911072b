// Package program builds an example program and runs it as a process, for its test.
package program

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience bounds every wait, so that a test that fails ends. None waits for it.
const patience = 30 * time.Second

// Binary is the program's file, once Main has built it.
var Binary string

// Main builds the program in the working directory, under the race detector if the
// test is, and runs the tests. It is to be called from TestMain.
func Main(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "hmacverify-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		Binary = filepath.Join(dir, "program.exe")
		args := []string{"build", "-o", Binary}
		if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
			args = append(args, "-race")
		}
		if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// command returns the program in binary, with env, "NAME=value", besides the environment of the
// test, from which Guuru's variables are taken out.
func command(binary string, env []string, args ...string) *exec.Cmd {
	cmd := exec.Command(binary, args...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "GUURU_") })
	cmd.Env = append(cmd.Env, env...)
	return cmd
}

// Example returns the nth of the documented bodies, with its signature. Its secret is
// secr3t.
func Example(t testing.TB, n int) (body []byte, sig string) {
	t.Helper()
	stem := filepath.Join("..", "..", "testdata", fmt.Sprintf("example%d", n))
	body, err := os.ReadFile(stem + ".json")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(stem + ".sig")
	if err != nil {
		t.Fatal(err)
	}
	return body, string(text)
}

// Post sends body with sigs as a chat-rated, and returns the answer's status and text.
func Post(url string, body io.Reader, sigs ...string) (string, error) {
	r, err := http.NewRequest("POST", url, body)
	if err != nil {
		return "", err
	}
	r.Header["X-Guuru-Hmac-Sha256"] = sigs
	r.Header.Set("X-Guuru-Event", "chat-rated")
	r.Header.Set("Idempotency-Key", "a key")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return fmt.Sprintf("%d %s", resp.StatusCode, text), err
}

// Run runs the program to its end.
func Run(t testing.TB, stdin string, env []string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	cmd := command(Binary, env, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	kill := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer kill.Stop()
	if err := cmd.Run(); cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// A Process is a program that listens.
type Process struct {
	Addr   string        // where it listens, 127.0.0.1:…
	URL    string        // the same, http://127.0.0.1:…
	Stdout *bufio.Reader // what it prints

	t      testing.TB
	cmd    *exec.Cmd
	mu     sync.Mutex
	stderr bytes.Buffer
	ended  chan struct{}
}

// Start starts the program on a free port, and returns when it listens. The process
// ends with the test at the latest.
func Start(t testing.TB, env []string, args ...string) *Process {
	t.Helper()
	return StartFile(t, Binary, env, args...)
}

// StartFile is Start for another program than the one that is tested. It has to take
// -addr, and to log where it listens, as the examples do.
func StartFile(t testing.TB, binary string, env []string, args ...string) *Process {
	t.Helper()
	p := &Process{t: t, ended: make(chan struct{})}
	p.cmd = command(binary, env, append([]string{"-addr", "127.0.0.1:0"}, args...)...)
	stdoutReader, stdoutWriter, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout, p.Stdout = stdoutWriter, bufio.NewReader(stdoutReader)
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stdoutWriter.Close()
	t.Cleanup(func() {
		p.Kill()
		stdoutReader.Close()
	})

	addr := make(chan string, 1)
	go func() {
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			p.mu.Lock()
			fmt.Fprintln(&p.stderr, lines.Text())
			p.mu.Unlock()
			if _, after, ok := strings.Cut(lines.Text(), "listening addr="); ok {
				addr <- after
			}
		}
		io.Copy(io.Discard, stderr) // after a line that is too long
		p.cmd.Wait()
		close(p.ended)
	}()
	select {
	case p.Addr = <-addr:
		p.URL = "http://" + p.Addr
	case <-p.ended:
		t.Fatalf("the program ended: %v\n%s", p.cmd.ProcessState, p.Stderr())
	case <-time.After(patience):
		t.Fatalf("the program does not listen:\n%s", p.Stderr())
	}
	return p
}

// Stderr is what the process has logged.
func (p *Process) Stderr() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stderr.String()
}

// WaitForLog waits until the process has logged text.
func (p *Process) WaitForLog(text string) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); !strings.Contains(p.Stderr(), text); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("the program does not log %q:\n%s", text, p.Stderr())
		}
	}
}

// Signal sends sig to the process.
func (p *Process) Signal(sig os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
}

// Wait waits for the process to end, and returns its status.
func (p *Process) Wait() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.t.Fatalf("the program does not end:\n%s", p.Stderr())
	}
	return p.cmd.ProcessState.ExitCode()
}

// Kill ends the process as a crash does: at once.
func (p *Process) Kill() {
	p.cmd.Process.Kill()
	<-p.ended
}
