package integration

import (
	"bufio"
	"database/sql"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"example.com/hmacverify"
)

// inbox stores each delivery once. The event is not signed, so the index treats
// all unknown events as one.
//
//	CREATE TABLE deliveries (
//		event text, signature text, idempotency_key text, body bytea,
//		received timestamptz DEFAULT now());
//	CREATE UNIQUE INDEX ON deliveries (signature, (CASE WHEN event IN (
//		'chat-assigned', 'chat-opened', 'chat-closed', 'chat-reopened',
//		'chat-transferred', 'chat-rated', 'message-created')
//		THEN event ELSE 'unknown' END));
func inbox(db *sql.DB) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			_, err = db.ExecContext(r.Context(), `
				INSERT INTO deliveries (event, signature, idempotency_key, body)
				VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
				strings.ToValidUTF8(r.Header.Get(hmacverify.EventHeader), "?"),
				r.Header.Get(hmacverify.SignatureHeader),
				strings.ToValidUTF8(r.Header.Get(hmacverify.IdempotencyKeyHeader), "?"),
				body)
		}
		if err != nil {
			slog.Error("not stored", "err", err,
				"signature", r.Header.Get(hmacverify.SignatureHeader))
			http.Error(w, "not stored", http.StatusInternalServerError)
			return
		}
		io.WriteString(w, "Success!")
	}
}

// schema returns the statements in the comment of inbox.
func schema(t *testing.T) string {
	t.Helper()
	_, text, _ := strings.Cut(read(t, ".ci/integration/postgres_test.go"), "//\tCREATE TABLE")
	text, _, _ = strings.Cut(text, "func inbox")
	return "CREATE TABLE" + strings.ReplaceAll(text, "//", "")
}

// serveInbox turns the test binary into a receiver. It prints its address.
func serveInbox(url string) {
	db, err := sql.Open("pgx", url)
	if err != nil {
		panic(err)
	}
	rc, err := hmacverify.New(secret)
	if err != nil {
		panic(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(listener.Addr())
	panic(http.Serve(listener, rc.Handler(inbox(db))))
}

// startProcess starts a receiver process and returns its URL.
func startProcess(t *testing.T, database string) (cmd *exec.Cmd, url string) {
	t.Helper()
	cmd = exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "DATABASE="+database)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	addr, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return cmd, "http://" + strings.TrimSpace(addr)
}

// A postgres is a PostgreSQL server in a temporary directory.
type postgres struct {
	bin, dir, host, port string
	attr                 *syscall.SysProcAttr // of the user that runs it
}

func newPostgres(t *testing.T) *postgres {
	t.Helper()
	initdb, err := exec.LookPath("initdb")
	if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb"); err != nil && len(found) > 0 {
		initdb, err = found[len(found)-1], nil
	}
	if err != nil {
		t.Skip("no PostgreSQL")
	}
	dir, err := os.MkdirTemp("", "hmacverify-postgres-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	pg := &postgres{bin: filepath.Dir(initdb), dir: dir}
	pg.host, pg.port = freePort(t)
	if os.Getuid() == 0 { // PostgreSQL does not run as root
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
		pg.attr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	pg.run(t, "initdb", "-D", dir+"/data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
	pg.start(t)
	t.Cleanup(func() { pg.stop(t) })
	return pg
}

func (pg *postgres) run(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(filepath.Join(pg.bin, name), args...)
	cmd.SysProcAttr, cmd.Dir = pg.attr, pg.dir
	out, err := os.Create(filepath.Join(t.TempDir(), "out")) // the server would keep a pipe open
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(out.Name())
		t.Fatalf("%s: %v\n%s", name, err, text)
	}
}

func (pg *postgres) start(t *testing.T) {
	t.Helper()
	pg.run(t, "pg_ctl", "-D", pg.dir+"/data", "-l", pg.dir+"/log", "-w",
		"-o", "-h "+pg.host+" -p "+pg.port+" -k "+pg.dir, "start")
}

func (pg *postgres) stop(t *testing.T) {
	t.Helper()
	pg.run(t, "pg_ctl", "-D", pg.dir+"/data", "-w", "-m", "immediate", "stop")
}

func TestPostgres(t *testing.T) {
	pg := newPostgres(t)
	database := "postgres://postgres@" + net.JoinHostPort(pg.host, pg.port) + "/postgres?sslmode=disable"
	db, err := sql.Open("pgx", database)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxIdleConns(0) // no connection outlives a restart
	if _, err := db.Exec(schema(t)); err != nil {
		t.Fatal(err)
	}
	var processes []*exec.Cmd
	var urls []string
	for range 3 {
		cmd, url := startProcess(t, database)
		processes, urls = append(processes, cmd), append(urls, url)
	}
	sign := func(url, event, body string) *http.Request {
		r := newRequest(t, url, body)
		r.Header.Set("X-Guuru-Event", event)
		r.Header.Set("X-Guuru-Hmac-Sha256", hmacverify.Sign(secret, []byte(body)))
		r.Header.Set("Idempotency-Key", "key \xff")
		return r
	}

	// Each delivery goes to all processes at once. One of them is killed.
	const senders, each, killAfter = 8, 100, 300
	var requests atomic.Int64
	var mu sync.Mutex
	accepted := map[string]bool{}
	var wg sync.WaitGroup
	for s := range senders {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for n := range each {
				body := fmt.Sprintf(`{"id":"%d-%d","question":"not UTF-8: `+"\xff"+`"}`, s, n)
				var duplicates sync.WaitGroup
				for i, url := range urls {
					duplicates.Add(1)
					go func() {
						defer duplicates.Done()
						if requests.Add(1) == killAfter {
							processes[0].Process.Kill()
						}
						response, err := try(sign(url, "chat-rated", body))
						if err != nil && i == 0 {
							return // killed
						}
						if err != nil || response != "200 Success!" {
							t.Errorf("process %d: got %q, %v; want 200", i, response, err)
							return
						}
						mu.Lock()
						accepted[body] = true
						mu.Unlock()
					}()
				}
				duplicates.Wait()
			}
		}()
	}
	wg.Wait()
	if len(accepted) != senders*each {
		t.Errorf("got %d deliveries accepted, want %d", len(accepted), senders*each)
	}
	stored := bodies(t, db)
	rows := map[string]int{}
	for _, body := range stored {
		rows[body]++
	}
	for body := range accepted {
		if rows[body] != 1 {
			t.Errorf("%q got 200: got %d rows, want 1", body, rows[body])
		}
	}

	// A captured request adds a row per known event, and one for all others.
	events := []string{"chat-assigned", "chat-opened", "chat-closed", "chat-reopened", "chat-transferred", "chat-rated", "message-created"}
	for i := range 50 {
		events = append(events, fmt.Sprintf("invented-%d\xff", i))
	}
	for _, event := range events {
		if got := do(t, sign(urls[1], event, `{"replayed":true}`)); got != "200 Success!" {
			t.Errorf("%q: got %q, want 200", event, got)
		}
	}
	if got, want := len(bodies(t, db))-len(stored), 8; got != want {
		t.Errorf("got %d new rows, want %d", got, want)
	}

	// Without the database, a delivery gets 500. Later it gets 200.
	pg.stop(t)
	if got := do(t, sign(urls[1], "chat-rated", `{"late":true}`)); got != "500 not stored\n" {
		t.Errorf("without a database: got %q, want 500", got)
	}
	pg.start(t)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		got := do(t, sign(urls[1], "chat-rated", `{"late":true}`))
		if got == "200 Success!" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("with a database again: got %q, want 200", got)
		}
	}
	if got := bodies(t, db); got[len(got)-1] != `{"late":true}` {
		t.Errorf("got last row %q, want the late delivery", got[len(got)-1])
	}
}

// bodies returns the body of each row.
func bodies(t *testing.T, db *sql.DB) (all []string) {
	t.Helper()
	rows, err := db.Query("SELECT body FROM deliveries ORDER BY received")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var body []byte
		if err := rows.Scan(&body); err != nil {
			t.Fatal(err)
		}
		all = append(all, string(body))
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}
