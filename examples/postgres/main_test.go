package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	neturl "net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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

func command(ctx context.Context, url string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], "-addr", "127.0.0.1:0")
	cmd.Env = append(os.Environ(), "RUN_PROGRAM=1", "DATABASE_URL="+url, "GUURU_SECRET=secr3t")
	return cmd
}

// check compares the response to a delivery.
func check(t *testing.T, addr, event, body, want string) {
	t.Helper()
	if got := post(addr, event, body); got != want {
		t.Errorf("%s, %s: got %q, want %q", event, body, got, want)
	}
}

// start starts the program. What it logs arrives at logged, line by line.
func start(t *testing.T, url string) (cmd *exec.Cmd, addr string, logged chan string) {
	cmd = command(t.Context(), url)
	stderr := must(cmd.StderrPipe())
	must(0, cmd.Start())
	lines := bufio.NewScanner(stderr)
	lines.Scan()
	_, addr, _ = strings.Cut(lines.Text(), "listening addr=")
	if addr == "" {
		t.Error(lines.Text())
	}
	logged = make(chan string, 10_000)
	go func() {
		for lines.Scan() {
			logged <- lines.Text()
		}
	}()
	return cmd, addr, logged
}

func newRequest(addr, event, body string) *http.Request {
	r := must(http.NewRequest("POST", "http://"+addr, strings.NewReader(body)))
	r.Header.Set(hmacverify.EventHeader, event)
	r.Header.Set(hmacverify.IdempotencyKeyHeader, "key \xff"+strings.Repeat("x", 10_000))
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

// expectLine runs the program, which must end with a line that has want in it.
func expectLine(t *testing.T, url, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	out, err := command(ctx, url).CombinedOutput()
	line, rest, _ := strings.Cut(string(out), "\n")
	if err == nil || rest != "" || !strings.Contains(line, want) || strings.Contains(line, "hunter2") {
		t.Errorf("%q: got %v, %s; want a line with %q and no password", url, err, out, want)
	}
}

func TestBadConfiguration(t *testing.T) {
	t.Parallel() // TestPostgres also takes its time
	const (
		url    = "postgres://user:hunter2@127.0.0.1:1/database"
		notURL = "DATABASE_URL: not a URL like postgres://user:percent-encoded-password@host"
	)
	for _, tc := range []struct{ url, want string }{
		{"", notURL},
		{"postgres://user:hunter2/@localhost/database", notURL},
		{"postgres://user:1@hunter2@localhost/database", notURL},
		{"mysql://user:hunter2@localhost/database?x=y", notURL},
		{"postgresql+asyncpg://user:hunter2@localhost/database", notURL},
		{"postgresql+asyncpg://user:hunter2@localhost/database?ssl=true", notURL},
		{url + "\n", "DATABASE_URL: contains a line break"},
		{url + "?sslmode=no-verify", "sslmode"},
		{url + "?sslmode=require&sslrootcert=/absent", "sslrootcert"},
		{url + "?connect_timeout=5s", "connect_timeout"},
		{url, "connection refused"},
		{url, "DATABASE_URL: connect: "},
	} {
		expectLine(t, tc.url, tc.want)
	}
	if testing.Short() {
		t.Skip("the database that does not respond: takes 10 seconds")
	}
	silent := must(net.Listen("tcp", "127.0.0.1:0"))
	defer silent.Close()
	silentURL := strings.Replace(url, "127.0.0.1:1", silent.Addr().String(), 1)
	expectLine(t, silentURL, "dial error: timeout: context deadline exceeded")
}

func freePort() string {
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	defer listener.Close()
	return fmt.Sprint(listener.Addr().(*net.TCPAddr).Port)
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
	port := freePort()
	sh("initdb -D data -U postgres -A trust -E UTF8 --no-sync && " +
		"printf \"port=" + port + "\nunix_socket_directories=''\n\" >>data/postgresql.conf")
	t.Cleanup(func() { sh("pg_ctl stop -D data -m immediate"); os.RemoveAll(dir) })
	sh("pg_ctl start -D data -l log")
	return "postgres://postgres@127.0.0.1:" + port + "/postgres", sh
}

// A table that cannot store a delivery is found at the start.
func TestUnusableTable(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	url, sh := newServer(t)
	sh("printf 'host all scram 127.0.0.1/32 scram-sha-256\n' | cat - data/pg_hba.conf >hba && " +
		"cp hba data/pg_hba.conf && pg_ctl reload -D data")
	db := must(pgx.Connect(ctx, url))
	defer db.Close(ctx) // not earlier, as by the garbage collector: it holds locks
	const reset = "DROP SCHEMA public CASCADE; CREATE SCHEMA public; CREATE "
	const trigger = `CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
		CREATE TRIGGER t BEFORE INSERT ON deliveries FOR EACH ROW EXECUTE FUNCTION f()`
	for _, tc := range []struct{ table, want string }{
		{"VIEW deliveries AS SELECT '' AS id, '' AS event, '' AS idempotency_key, ''::bytea AS body",
			"cannot insert into view"},
		{"TABLE deliveries (id text, event text, idempotency_key text, body bytea)", "constraint"},
		{"TABLE deliveries (id text PRIMARY KEY, event text, body bytea)", "idempotency_key"},
		{"TABLE deliveries (id varchar(80) PRIMARY KEY, event text, idempotency_key text, body bytea)",
			"varying(80)"},
		{"TABLE deliveries (id text PRIMARY KEY, event text, idempotency_key text, body bytea); " +
			trigger, "DATABASE_URL: try an insertion: a trigger or rule swallows rows"},
	} {
		must(db.Exec(ctx, reset+tc.table))
		expectLine(t, url, tc.want)
	}
	must(db.Exec(ctx, reset+"ROLE scram LOGIN PASSWORD 'another'"))
	wrong := strings.Replace(url, "postgres@", "scram:hunter2@", 1)
	expectLine(t, wrong, "password authentication failed")
	_, addr, _ := start(t, url) // stores nothing
	if n := must(db.Exec(ctx, "SELECT FROM deliveries")).RowsAffected(); n != 0 {
		t.Errorf("got %d rows after a start, want none", n)
	}
	check(t, addr, "chat-rated", "1", "200 Success!")
	must(db.Exec(ctx, trigger))
	check(t, addr, "chat-rated", "1", "200 Success!")
	check(t, addr, "chat-rated", "2", "500 not stored\n")
	if testing.Short() {
		t.Skip("the locks that a start waits for: takes 10 seconds")
	}
	must(db.Exec(ctx, "DROP FUNCTION f CASCADE; BEGIN; LOCK TABLE deliveries"))
	var wg sync.WaitGroup
	wg.Go(func() { expectLine(t, url, "DATABASE_URL: try an insertion: timeout: context deadline") })
	for range 1000 { // until that one waits for the table
		if must(db.Exec(ctx, "SELECT FROM pg_locks WHERE NOT granted")).RowsAffected() == 1 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	must(db.Exec(ctx, "SELECT pg_advisory_lock(7480083526)")) // as another instance's start does
	expectLine(t, url, "DATABASE_URL: create the table: timeout: context deadline exceeded")
	wg.Wait()
}

// A firewall forgets the connections in the pool. New ones work.
func TestSilentConnections(t *testing.T) {
	t.Parallel()
	url, _ := newServer(t)
	server := must(neturl.Parse(url))
	proxy := must(net.Listen("tcp", "127.0.0.1:0"))
	defer proxy.Close()
	var silenced atomic.Int64 // how often
	pass := func(to, from net.Conn, generation int64) {
		buf := make([]byte, 1<<16)
		for {
			n, err := from.Read(buf)
			if silenced.Load() != generation {
				return // without closing either side
			}
			to.Write(buf[:n])
			if err != nil {
				to.Close()
				return
			}
		}
	}
	go func() {
		var open []net.Conn // the garbage collector would close them
		for {
			client, err := proxy.Accept()
			if err != nil {
				return
			}
			conn := must(net.Dial("tcp", server.Host))
			open = append(open, client, conn)
			go pass(conn, client, silenced.Load())
			go pass(client, conn, silenced.Load())
		}
	}()
	db := must(pgx.Connect(t.Context(), url))
	const idle = "SELECT FROM pg_stat_activity WHERE state = 'idle'"
	through := strings.Replace(url, server.Host, proxy.Addr().String(), 1)
	_, addr, _ := start(t, through+"?pool_min_conns=4&pool_max_conns=4")
	for begin := time.Now(); must(db.Exec(t.Context(), idle)).RowsAffected() != 4; {
		if time.Since(begin) > 20*time.Second {
			t.Fatal("waited in vain for four connections")
		}
		time.Sleep(10 * time.Millisecond)
	}
	silenced.Add(1)
	var wg sync.WaitGroup
	begin := time.Now()
	for n := range 6 {
		wg.Go(func() { check(t, addr, "chat-rated", fmt.Sprint(n), "200 Success!") })
	}
	wg.Wait()
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("it took %v, want about 1s", took)
	}
}

// PgBouncer gives each transaction another connection of the server.
func TestPgBouncer(t *testing.T) {
	t.Parallel()
	os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin")
	if _, err := exec.LookPath("pgbouncer"); err != nil {
		t.Skip("PgBouncer is not installed: ", err)
	}
	url, sh := newServer(t)
	server := must(neturl.Parse(url))
	port := freePort()
	sh("printf '[databases]\n* = host=127.0.0.1 user=postgres port=" + server.Port() +
		"\n[pgbouncer]\nlisten_addr=127.0.0.1\nlisten_port=" + port + "\nauth_type=any\n" +
		"pool_mode=transaction\ndefault_pool_size=3\nunix_socket_dir=\npidfile=pid\n" +
		"logfile=bouncer\n' >ini && pgbouncer -d ini && timeout 10 sh -c " +
		"'until pg_isready -h 127.0.0.1 -p " + port + "; do sleep 0.1; done'")
	t.Cleanup(func() { sh("kill $(cat pid)") })
	server.Host = "127.0.0.1:" + port
	_, first, _ := start(t, server.String())
	_, second, _ := start(t, server.String())
	var wg sync.WaitGroup
	for n := range 300 {
		wg.Go(func() {
			check(t, []string{first, second}[n%2], "chat-rated", fmt.Sprint(n), "200 Success!")
		})
		if n%20 == 0 {
			wg.Wait()
		}
	}
	wg.Wait()
	db := must(pgx.Connect(t.Context(), url))
	if n := must(db.Exec(t.Context(), "SELECT FROM deliveries")).RowsAffected(); n != 300 {
		t.Errorf("got %d rows, want 300", n)
	}
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
		const blocked = "SELECT query FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
		for begin := time.Now(); len(query(blocked)) != n; time.Sleep(10 * time.Millisecond) {
			if time.Since(begin) > 20*time.Second {
				t.Fatalf("waited in vain for %d blocked statements", n)
			}
		}
	}
	var rows []string // that must be in the table
	expect := func(event, body string) {
		id := hmacverify.DeliveryID(event, hmacverify.Sign("secr3t", []byte(body)))
		rows = append(rows, fmt.Sprintf("%s, key ?%s, %x", id, strings.Repeat("x", 95), body))
	}
	send := func(addr, event, body string) {
		check(t, addr, event, body, "200 Success!")
		expect(event, body)
	}

	// Three programs create the table at the same time.
	var wg sync.WaitGroup
	var programs [3]*exec.Cmd
	var addrs [3]string
	release := hold("CREATE TABLE deliveries ()")
	for i := range programs {
		wg.Go(func() { programs[i], addrs[i], _ = start(t, url) })
	}
	waitForBlocked(3)
	release()
	wg.Wait()

	// Each delivery goes to all three at once. One of them is killed.
	for n := range 200 {
		body := fmt.Sprintf("\"%d \xff\"", n)
		wg.Go(func() { post(addrs[0], "chat-rated", body) })
		wg.Go(func() { check(t, addrs[1], "chat-rated", body, "200 Success!") })
		wg.Go(func() { check(t, addrs[2], "chat-rated", body, "200 Success!") })
		expect("chat-rated", body)
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
	_, addr, logged := start(t, app)
	for _, event := range []string{"chat-assigned", "chat-opened", "chat-closed", "chat-reopened",
		"chat-transferred", "chat-rated", "message-created", "not UTF-8: \xff", "new", ""} {
		send(addr, event, "{}")
	}
	send(addr, "chat-rated", "{}") // again
	// The last three names are unknown, so that they are one delivery.
	results := strings.Fields(strings.Repeat("stored ", 8) + strings.Repeat("duplicate ", 3))
	for i, want := range results {
		if line := <-logged; !strings.Contains(line, "INFO "+want+" id=") {
			t.Errorf("delivery %d: got %s, want %s", i, line, want)
		}
	}

	// What is not signed is cut, here within a character.
	send(addr, "x"+strings.Repeat("é", 10_000), `"long"`)
	want := "x" + strings.Repeat("é", 49) + "?"
	if got := query(`SELECT event FROM deliveries WHERE body = '"long"'`)[0]; got != want {
		t.Errorf("got event %s, want %s", got, want)
	}
	if line := <-logged; !strings.HasSuffix(line, " event="+want+` key="key ?`+
		strings.Repeat("x", 95)+`"`) {
		t.Errorf("got %s, want it cut", line)
	}

	// The server closes the connections in the pool, stops, and starts.
	query("SELECT pg_terminate_backend(pid, 9999)::text FROM pg_stat_activity WHERE usename = 'app'")
	send(addr, "chat-rated", `"terminated"`)
	sh("pg_ctl stop -D data -m fast")
	check(t, addr, "chat-rated", `"stopped"`, "500 not stored\n")
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

	// The query in the program's comment shows every body.
	send(addr, "chat-rated", `"\u0000"`)
	comment := regexp.MustCompile(`-c "(SELECT .*)"`).FindSubmatch(must(os.ReadFile("main.go")))
	if n := must(db.Exec(ctx, string(comment[1]))).RowsAffected(); n < 200 {
		t.Errorf("%s: got %d rows, want more", comment[1], n)
	}

	if testing.Short() {
		t.Skip("the rest, with a database that hangs: takes 20 seconds")
	}
	// The table stays locked, or the server's processes hang.
	lock := func() func() { return hold("LOCK TABLE deliveries") }
	hang := func() func() {
		pids := strings.Join(query(`SELECT pid::text FROM pg_stat_activity WHERE usename = 'app'
			UNION SELECT split_part(pg_read_file('postmaster.pid'), E'\n', 1)`), " ")
		sh("kill -STOP " + pids)
		return func() { sh("kill -CONT " + pids) }
	}
	for _, obstruct := range []func() func(){lock, hang} {
		cmd, addr, _ := start(t, app)
		release := obstruct()
		for range 12 { // the pool has at most 10 connections
			wg.Go(func() { check(t, addr, "chat-rated", `"hung"`, "500 not stored\n") })
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

	rows = slices.Compact(slices.Sorted(slices.Values(rows)))
	if got := query(`SELECT concat_ws(', ', id, idempotency_key, encode(body, 'hex')) COLLATE "C"
		FROM deliveries WHERE body <> '"hung"' ORDER BY 1`); !slices.Equal(got, rows) {
		t.Errorf("got rows %q\nwant %q", got, rows)
	}
}
