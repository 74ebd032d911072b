package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"example.com/hmacverify"
)

// The test binary is the program if RUN_PROGRAM is set.
func TestMain(m *testing.M) {
	if os.Getenv("RUN_PROGRAM") != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func command(secret, url string, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], append([]string{"-addr", "127.0.0.1:0"}, args...)...)
	cmd.Env = append(os.Environ(), "RUN_PROGRAM=1", "DATABASE_URL="+url,
		"GUURU_SECRET="+secret, "GUURU_SECRET_PREVIOUS=secr3t")
	return cmd
}

func start(t *testing.T, url string) (cmd *exec.Cmd, addr string) {
	cmd = command("new secret", url)
	stderr := must(cmd.StderrPipe())
	must(0, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill() })
	line, _ := bufio.NewReader(stderr).ReadString('\n')
	go io.Copy(io.Discard, stderr)
	line = strings.TrimSpace(line)
	t.Log(line)
	_, addr, _ = strings.Cut(line, "listening addr=")
	return cmd, addr
}

func newRequest(addr, event, body string) *http.Request {
	r := must(http.NewRequest("POST", "http://"+addr, strings.NewReader(body)))
	r.Header.Set(hmacverify.EventHeader, event)
	r.Header.Set(hmacverify.IdempotencyKeyHeader, "key \xff")
	r.Header.Set(hmacverify.SignatureHeader, hmacverify.Sign("secr3t", []byte(body)))
	return r
}

func post(addr, event, body string) string {
	resp, err := (&http.Client{Timeout: 14 * time.Second}).Do(newRequest(addr, event, body))
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	return fmt.Sprintf("%d %s", resp.StatusCode, must(io.ReadAll(resp.Body)))
}

func TestBadConfiguration(t *testing.T) {
	t.Parallel() // TestPostgres also takes its time
	silent := must(net.Listen("tcp", "127.0.0.1:0"))
	defer silent.Close()
	url := "postgres://user:hunter2@" + silent.Addr().String() + "/database"
	for _, tc := range []struct{ url, secret, arg, want string }{
		{"", "secr3t", "", "not a URL"},
		{"postgres://user:hunter2/@localhost/database", "secr3t", "", "not a URL"},
		{"postgres://user:1@hunter2@localhost/database", "secr3t", "", "not a URL"},
		{"mysql://user:hunter2@localhost/database?x=y", "secr3t", "", "not a URL"},
		{"postgres://user:hunter2@127.0.0.1:1/database", "secr3t", "", "connection refused"},
		{url, "", "", "GUURU_SECRET: hmacverify: empty secret"},
		{url, "secr3t", "stray", `unexpected argument "stray"`},
		{url, "secr3t", "", "deadline exceeded"},
	} {
		out, err := command(tc.secret, tc.url, strings.Fields(tc.arg)...).CombinedOutput()
		got := string(out)
		if err == nil || strings.Count(got, "\n") != 1 || !strings.Contains(got, tc.want) ||
			strings.Contains(got, "hunter2") {
			t.Errorf("%q: got %v, %q; want a line with %q and no password", tc.url, err, got, tc.want)
		}
	}
}

// newServer returns the URL of a new PostgreSQL server, and a function that runs
// a shell script as its user.
func newServer(t *testing.T) (url string, sh func(script string)) {
	debian, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	os.Setenv("PATH", strings.Join(append(debian, os.Getenv("PATH")), ":"))
	if _, err := exec.LookPath("initdb"); err != nil {
		t.Skip("no PostgreSQL server: ", err)
	}
	dir := must(os.MkdirTemp("", "hmacverify-"))
	must(0, os.Chmod(dir, 0o777))
	sh = func(script string) {
		cmd := exec.Command("sh", "-c", script)
		if os.Getuid() == 0 { // PostgreSQL does not run as root
			cmd = exec.Command("runuser", "-u", "postgres", "--", "sh", "-c", script)
		}
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
	}
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	listener.Close()
	sh("initdb -D data -U postgres -A trust -E UTF8 --no-sync")
	sh("printf \"port=" + port + "\nunix_socket_directories=''\n\" >>data/postgresql.conf")
	t.Cleanup(func() { sh("pg_ctl stop -D data -m immediate"); os.RemoveAll(dir) })
	sh("pg_ctl start -D data -l log")
	return "postgres://postgres@127.0.0.1:" + port + "/postgres", sh
}

func TestPostgres(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	url, sh := newServer(t)
	db := must(pgx.Connect(ctx, url))
	query := func(statement string) []string {
		return must(pgx.CollectRows(must(db.Query(ctx, statement)), pgx.RowTo[string]))
	}
	// hold runs statement in a transaction that release ends.
	hold := func(statement string) (release func()) {
		conn := must(pgx.Connect(ctx, url))
		must(conn.Exec(ctx, "BEGIN; "+statement))
		return func() { conn.Close(ctx) }
	}
	waitForBlocked := func(n int) {
		t.Helper()
		for range 500 {
			if len(query("SELECT query FROM pg_stat_activity WHERE wait_event_type = 'Lock'")) == n {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Errorf("waited in vain for %d blocked statements", n)
	}
	var rows sync.Map // that must be in the table
	expect := func(event, body string) {
		id := hmacverify.DeliveryID(event, hmacverify.Sign("secr3t", []byte(body)))
		rows.Store(fmt.Sprintf("%s, key ?, %x", id, body), true)
	}
	send := func(addr, event, body string) {
		t.Helper()
		if got := post(addr, event, body); got != "200 Success!" {
			t.Errorf("%s, %s: got %q, want 200", event, body, got)
		}
		expect(event, body)
	}

	// Three programs create the table at the same time.
	var wg sync.WaitGroup
	var programs [3]*exec.Cmd
	var addrs [3]string
	release := hold("CREATE TABLE deliveries ()")
	for i := range programs {
		wg.Go(func() { programs[i], addrs[i] = start(t, url) })
	}
	waitForBlocked(3)
	release()
	wg.Wait()

	// Each delivery goes to all three at once. One of them is killed.
	for n := range 200 {
		body := fmt.Sprintf("\"%d \xff\"", n)
		wg.Go(func() { post(addrs[0], "chat-rated", body) })
		wg.Go(func() { send(addrs[1], "chat-rated", body) })
		wg.Go(func() { send(addrs[2], "chat-rated", body) })
		if n == 100 {
			programs[0].Process.Kill()
		}
		if n%4 == 0 {
			wg.Wait()
		}
	}
	wg.Wait()

	// A program that starts later needs few privileges.
	must(db.Exec(ctx, "CREATE ROLE app LOGIN; GRANT SELECT, INSERT ON deliveries TO app"))
	app := strings.Replace(url, "postgres@", "app@", 1)
	_, addr := start(t, app)
	for _, event := range []string{"chat-assigned", "chat-opened", "chat-closed", "chat-reopened",
		"chat-transferred", "chat-rated", "message-created", "not UTF-8: \xff", "new", ""} {
		send(addr, event, "{}")
	}

	// The server closes the connections in the pool, stops, and starts.
	query("SELECT pg_terminate_backend(pid, 9999)::text FROM pg_stat_activity WHERE usename = 'app'")
	send(addr, "chat-rated", `"terminated"`)
	sh("pg_ctl stop -D data -m fast")
	if got := post(addr, "chat-rated", `"stopped"`); got != "500 not stored\n" {
		t.Errorf("got %q, want 500", got)
	}
	sh("pg_ctl start -D data -l log")
	send(addr, "chat-rated", `"started"`)
	db = must(pgx.Connect(ctx, url))

	// The sender disconnects or half-closes while the insertion waits.
	release = hold("LOCK TABLE deliveries")
	for i, body := range []string{`"disconnected"`, `"half-closed"`} {
		conn := must(net.Dial("tcp", addr)).(*net.TCPConn)
		must(0, newRequest(addr, "chat-rated", body).Write(conn))
		waitForBlocked(i + 1)
		must(0, []func() error{conn.Close, conn.CloseWrite}[i]())
		expect("chat-rated", body)
	}
	time.Sleep(time.Second) // for the program to notice
	release()
	waitForBlocked(0)

	// The table stays locked, or the server's processes hang.
	lock := func() func() { return hold("LOCK TABLE deliveries") }
	hang := func() func() {
		pids := strings.Join(query(`SELECT pid::text FROM pg_stat_activity WHERE usename = 'app'
			UNION SELECT split_part(pg_read_file('postmaster.pid'), E'\n', 1)`), " ")
		sh("kill -STOP " + pids)
		return func() { sh("kill -CONT " + pids) }
	}
	for _, obstruct := range []func() func(){lock, hang} {
		cmd, addr := start(t, app)
		release := obstruct()
		for range 12 { // the pool has at most 10 connections
			wg.Go(func() {
				if got := post(addr, "chat-rated", `"hung"`); got != "500 not stored\n" {
					t.Errorf("got %q, want 500", got)
				}
			})
		}
		time.Sleep(time.Second)
		must(0, cmd.Process.Signal(syscall.SIGTERM))
		wg.Wait()
		timer := time.AfterFunc(5*time.Second, func() { cmd.Process.Kill() })
		if err := cmd.Wait(); err != nil || !timer.Stop() {
			t.Errorf("after SIGTERM: got %v, want status 0", err)
		}
		release()
	}

	for _, row := range query(`SELECT concat_ws(', ', id, idempotency_key, encode(body, 'hex'))
		FROM deliveries WHERE body <> '"hung"'`) {
		if _, expected := rows.LoadAndDelete(row); !expected {
			t.Errorf("got row %q, which was not sent or is there twice", row)
		}
	}
	rows.Range(func(row, _ any) bool {
		t.Errorf("got no row %q", row)
		return true
	})
}
