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

func command(ctx context.Context, url string, env ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], "-addr", "127.0.0.1:0")
	cmd.Env = append(os.Environ(), "RUN_PROGRAM=1", "DATABASE_URL="+url, "GUURU_SECRET=secr3t")
	cmd.Env = append(cmd.Env, env...)
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
func expectLine(t *testing.T, url, want string, env ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	out, err := command(ctx, url, env...).CombinedOutput()
	line, rest, _ := strings.Cut(string(out), "\n")
	if err == nil || rest != "" || !strings.Contains(line, want) || strings.Contains(line, "hunter2") {
		t.Errorf("%q: got %v, %s; want a line with %q and no password", url, err, out, want)
	}
}

func TestBadConfiguration(t *testing.T) {
	t.Parallel() // TestPostgres also takes its time
	const (
		url    = "postgres://user:hunter2@127.0.0.1:1/database"
		notURL = "DATABASE_URL: not a URL like postgres://user:percent-encoded-password@host/database"
		param  = "DATABASE_URL: a parameter, or a PG variable such as PGSSLMODE: "
	)
	for _, tc := range []struct{ url, want, env string }{
		{"", notURL, ""},
		{"postgres://user:hunter2/@localhost/database", notURL, ""},
		{"postgres://user:hunter2%@localhost/database", notURL, ""},
		{"postgres://user:hunter2", notURL, ""}, // as a port
		{"postgres://user:1@hunter2@localhost/database", notURL, ""},
		{"mysql://user:hunter2@localhost/database?x=y", notURL, ""},
		{"postgresql+asyncpg://user:hunter2@localhost/database?ssl=true", notURL, ""},
		{"user=user password=hunter2", notURL, ""},
		{url + "\n", "a line break", ""},
		{url, "(PGPORT)", "PGPORT=x"},
		{url + "?sslmode=no-verify", param + "failed to configure TLS (sslmode is invalid)", ""},
		{url + "?sslmode=require&sslrootcert=/absent", "open /absent: no such file", ""},
		{url + "?connect_timeout=5s", param + "invalid connect_timeout", ""},
		{url, param + "invalid connect_timeout", "PGCONNECT_TIMEOUT=5s"},
		{url + "?pool_max_conns=0", param + "pool_max_conns too small", ""},
		{url, "DATABASE_URL: connect: ", ""},
		{url, "connection refused", ""},
	} {
		if tc.env == "PGPORT=x" {
			tc.url = strings.Replace(url, ":1/", "/", 1)
		}
		expectLine(t, tc.url, tc.want, tc.env)
	}
	silent := must(net.Listen("tcp", "127.0.0.1:0"))
	defer silent.Close()
	silentURL := strings.Replace(url, "127.0.0.1:1", silent.Addr().String(), 1)
	begin := time.Now()
	expectLine(t, silentURL+"?connect_timeout=1", "timeout: context deadline exceeded")
	if took := time.Since(begin); took > 2500*time.Millisecond {
		t.Errorf("with a timeout of 1 s, it took %v", took)
	}
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
		{"TABLE deliveries (id text PRIMARY KEY, event text, idempotency_key text, body text)",
			`DATABASE_URL: read the row back (trigger, rule, body not bytea?): "\\x00ff", <nil>`},
		{"TABLE deliveries (id text PRIMARY KEY, event text, idempotency_key text, body bytea); " +
			trigger, "DATABASE_URL: read the row back (trigger, rule, body not bytea?): \"\", no rows"},
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

// A proxy passes connections on to a server that can change.
type proxy struct {
	net.Listener
	to         atomic.Value // the address for new connections
	generation atomic.Int64 // passes only connections of this one on
}

func newProxy(t *testing.T, to string) *proxy {
	p := &proxy{Listener: must(net.Listen("tcp", "127.0.0.1:0"))}
	t.Cleanup(func() { p.Close() })
	p.to.Store(to)
	pass := func(to, from net.Conn, generation int64) {
		buf := make([]byte, 1<<16)
		for {
			n, err := from.Read(buf)
			if p.generation.Load() != generation {
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
			client, err := p.Accept()
			if err != nil {
				return
			}
			conn := must(net.Dial("tcp", p.to.Load().(string)))
			open = append(open, client, conn)
			go pass(conn, client, p.generation.Load())
			go pass(client, conn, p.generation.Load())
		}
	}()
	return p
}

// startWithPool starts the program, and waits until its pool has four connections.
func startWithPool(t *testing.T, url string, db *pgx.Conn) (addr string) {
	_, addr, _ = start(t, url+"?pool_min_conns=4&pool_max_conns=4")
	const idle = "SELECT FROM pg_stat_activity WHERE state = 'idle' AND pid <> pg_backend_pid()"
	for begin := time.Now(); must(db.Exec(t.Context(), idle)).RowsAffected() != 4; {
		if time.Since(begin) > 20*time.Second {
			t.Fatal("waited in vain for four connections")
		}
		time.Sleep(10 * time.Millisecond)
	}
	return addr
}

// A firewall forgets the connections in the pool. New ones work.
func TestSilentConnections(t *testing.T) {
	t.Parallel()
	url, _ := newServer(t)
	server := must(neturl.Parse(url)).Host
	db := must(pgx.Connect(t.Context(), url))
	defer db.Close(t.Context())
	p := newProxy(t, server)
	addr := startWithPool(t, strings.Replace(url, server, p.Addr().String(), 1), db)
	p.generation.Add(1)
	for range 2 { // the second round finds no dead connections any more
		var wg sync.WaitGroup
		for n := range 6 {
			wg.Go(func() { check(t, addr, "chat-rated", fmt.Sprint(n), "200 Success!") })
		}
		begin := time.Now()
		wg.Wait()
		if took := time.Since(begin); took > 9*time.Second {
			t.Errorf("it took %v, want about 5s", took)
		}
	}
}

// The address leads to another server. The old one stays up, read-only.
func TestFailover(t *testing.T) {
	t.Parallel()
	url, _ := newServer(t)
	next, _ := newServer(t)
	old, db := must(pgx.Connect(t.Context(), url)), must(pgx.Connect(t.Context(), next))
	defer old.Close(t.Context())
	defer db.Close(t.Context())
	server := must(neturl.Parse(url)).Host
	p := newProxy(t, server)
	addr := startWithPool(t, strings.Replace(url, server, p.Addr().String(), 1), old)
	start(t, next) // creates the table
	must(old.Exec(t.Context(), "ALTER SYSTEM SET default_transaction_read_only = on"))
	must(old.Exec(t.Context(), "SELECT pg_reload_conf()"))
	p.to.Store(must(neturl.Parse(next)).Host)
	var wg sync.WaitGroup
	for n := range 20 {
		wg.Go(func() { check(t, addr, "chat-rated", fmt.Sprint(n), "200 Success!") })
	}
	wg.Wait()
	if n := must(db.Exec(t.Context(), "SELECT FROM deliveries")).RowsAffected(); n != 20 {
		t.Errorf("got %d rows in the new server, want 20", n)
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

// The parts run one after another, on one server.
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

	var programs [3]*exec.Cmd
	var addrs [3]string
	t.Run("three programs create the table at once", func(*testing.T) {
		var wg sync.WaitGroup
		release := hold("CREATE TABLE deliveries ()")
		for i := range programs {
			wg.Go(func() { programs[i], addrs[i], _ = start(t, url) })
		}
		waitForBlocked(3)
		release()
		wg.Wait()
	})
	// Before the second half, one of them is killed, and the isolation of
	// transactions makes concurrent duplicates fail.
	t.Run("each delivery goes to all three at once", func(*testing.T) {
		var wg sync.WaitGroup
		for n := range 200 {
			body := fmt.Sprintf("\"%d \xff\"", n)
			wg.Go(func() { post(addrs[0], "chat-rated", body) })
			wg.Go(func() { check(t, addrs[1], "chat-rated", body, "200 Success!") })
			wg.Go(func() { check(t, addrs[2], "chat-rated", body, "200 Success!") })
			expect("chat-rated", body)
			if n%4 == 0 {
				wg.Wait()
			}
			if n == 100 {
				programs[0].Process.Kill()
				query(`ALTER DATABASE postgres SET default_transaction_isolation = 'serializable'`)
				query(`SELECT pg_terminate_backend(pid, 9999)::text FROM pg_stat_activity
					WHERE state = 'idle'`)
			}
		}
		wg.Wait()
		query("ALTER DATABASE postgres RESET default_transaction_isolation")
	})

	// A program that starts later needs few privileges.
	must(db.Exec(ctx, "CREATE ROLE app LOGIN; GRANT SELECT, INSERT ON deliveries TO app"))
	app := strings.Replace(url, "postgres@", "app@", 1)
	expectLine(t, app, "permission denied")
	must(db.Exec(ctx, "GRANT UPDATE ON deliveries TO app"))
	_, addr, logged := start(t, app)
	t.Run("duplicates", func(t *testing.T) {
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
	})
	t.Run("what is not signed is cut", func(t *testing.T) {
		send(addr, "x"+strings.Repeat("é", 10_000), `"long"`)
		want := "x" + strings.Repeat("é", 99)
		if got := query(`SELECT event FROM deliveries WHERE body = '"long"'`)[0]; got != want {
			t.Errorf("got event %s, want %s", got, want)
		}
		if line := <-logged; !strings.HasSuffix(line, " event="+want+` key="key ?`+
			strings.Repeat("x", 95)+`"`) {
			t.Errorf("got %s, want it cut", line)
		}
	})
	t.Run("a body of 1 MiB", func(*testing.T) {
		send(addr, "chat-rated", strings.Repeat("1", 1<<20))
		<-logged
	})
	t.Run("the trial has a new ID at each start", func(*testing.T) {
		query(`CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS
			'BEGIN RAISE LOG ''trial %'', NEW.id; RETURN NEW; END'`)
		query("CREATE TRIGGER t BEFORE INSERT ON deliveries FOR EACH ROW EXECUTE FUNCTION f()")
		start(t, url)
		start(t, url)
		query("DROP FUNCTION f CASCADE")
		sh(`test $(grep -oE 'trial 0{55}[^0].{25}$' log | sort -u | wc -l) = 2`)
	})
	t.Run("the database is read-only for some time", func(*testing.T) {
		query("ALTER DATABASE postgres SET default_transaction_read_only = on")
		query("SELECT pg_terminate_backend(pid, 9999)::text FROM pg_stat_activity WHERE usename = 'app'")
		check(t, addr, "chat-rated", `"read-only"`, "500 not stored\n")
		for _, want := range []string{
			`WARN trying again, with new connections id=.* err=".*terminating connection`,
			`ERROR not stored id=.* err="ERROR: cannot execute INSERT`,
		} {
			if line := <-logged; !regexp.MustCompile(want).MatchString(line) {
				t.Errorf("got %s, want %s", line, want)
			}
		}
		query("SET default_transaction_read_only = off")
		query("ALTER DATABASE postgres RESET default_transaction_read_only")
		send(addr, "chat-rated", `"read-only"`)
	})
	t.Run("the server restarts, and crashes", func(*testing.T) {
		query("SELECT pg_terminate_backend(pid, 9999)::text FROM pg_stat_activity WHERE usename = 'app'")
		send(addr, "chat-rated", `"terminated"`)
		for _, mode := range []string{"fast", "immediate"} {
			sh("pg_ctl stop -D data -m " + mode)
			check(t, addr, "chat-rated", `"stopped"`, "500 not stored\n")
			sh("pg_ctl start -D data -l log")
			send(addr, "chat-rated", fmt.Sprintf("%q", mode))
		}
		db = must(pgx.Connect(ctx, url))
	})
	t.Run("the sender leaves while the insertion waits", func(*testing.T) {
		release := hold("LOCK TABLE deliveries")
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
	})
	t.Run("the query in the program's comment shows every body", func(t *testing.T) {
		send(addr, "chat-rated", `"\u0000"`)
		comment := regexp.MustCompile(`-c "(SELECT .*)"`).FindSubmatch(must(os.ReadFile("main.go")))
		if n := must(db.Exec(ctx, string(comment[1]))).RowsAffected(); n < 200 {
			t.Errorf("%s: got %d rows, want more", comment[1], n)
		}
	})
	if !testing.Short() { // each takes 10 or 20 seconds
		t.Run("the row is there, but no standby has it", func(t *testing.T) {
			query("ALTER SYSTEM SET synchronous_standby_names = 'absent'")
			query("SELECT pg_reload_conf()::text")
			body, begin := `""`, time.Now()
			for post(addr, "chat-rated", body) == "200 Success!" { // not reloaded yet
				if time.Since(begin) > 20*time.Second {
					t.Fatal("a delivery that no standby has is acknowledged")
				}
				expect("chat-rated", body)
				body = fmt.Sprintf("%q", time.Now())
			}
			check(t, addr, "chat-rated", body, "500 not stored\n") // a duplicate
			query("ALTER SYSTEM RESET synchronous_standby_names")
			query("SELECT pg_reload_conf()::text")
			send(addr, "chat-rated", body)
		})
		lock := func() func() { return hold("LOCK TABLE deliveries") }
		hang := func() func() {
			pids := strings.Join(query(`SELECT pid::text FROM pg_stat_activity WHERE usename = 'app'
				UNION SELECT split_part(pg_read_file('postmaster.pid'), E'\n', 1)`), " ")
			sh("kill -STOP " + pids)
			return func() { sh("kill -CONT " + pids) }
		}
		for name, obstruct := range map[string]func() func(){
			"the table stays locked": lock, "the server's processes hang": hang,
		} {
			t.Run(name, func(*testing.T) {
				var wg sync.WaitGroup
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
			})
		}
	}

	rows = slices.Compact(slices.Sorted(slices.Values(rows)))
	if got := query(`SELECT concat_ws(', ', id, idempotency_key, encode(body, 'hex')) COLLATE "C"
		FROM deliveries WHERE body NOT IN ('"hung"', '"stopped"') ORDER BY 1`); !slices.Equal(got, rows) {
		t.Errorf("got rows %q\nwant %q", got, rows)
	}
}
