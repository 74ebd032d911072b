// Postgres stores each delivery from Guuru once in PostgreSQL before it responds
// with 200, also behind PgBouncer and after a failover:
//
//	cd examples/postgres
//	export DATABASE_URL=postgres://user:password@localhost:5432/database
//	GUURU_SECRET=secr3t go run .
//	psql "$DATABASE_URL" -c "SELECT id, encode(body, 'escape') FROM deliveries"
//
// The first start needs CREATE on the schema, later ones SELECT, INSERT, and
// UPDATE (for FOR SHARE) on the table. It opens up to 10 connections, and 20 after
// a failure: where fewer are allowed, add ?pool_max_conns=2 to the URL. A crash of
// PostgreSQL may lose rows if the table is UNLOGGED or synchronous_commit is off.
// On SIGTERM, give a container 25 seconds to finish requests.
package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"example.com/hmacverify"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

func main() {
	addr := flag.String("addr", ":"+cmp.Or(os.Getenv("PORT"), "8000"), "listen on this `host:port`")
	flag.Parse()
	if flag.NArg() > 0 {
		log.Fatalf("unexpected argument %q", flag.Arg(0))
	}
	secrets := []string{os.Getenv("GUURU_SECRET")}
	if previous := os.Getenv("GUURU_SECRET_PREVIOUS"); previous != "" {
		secrets = append(secrets, previous)
	}
	rc, err := hmacverify.New(secrets...)
	if err != nil {
		log.Fatalf("GUURU_SECRET, GUURU_SECRET_PREVIOUS: %v", err)
	}
	s, err := open(os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal("DATABASE_URL: ", strings.Join(strings.Fields(err.Error()), " ")) // one line
	}
	serve(*addr, rc.Handler(http.HandlerFunc(s.deliver)))
}

// deliver receives only requests with a valid signature.
func (s *store) deliver(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body) // from memory, so there is no error
	event, key := r.Header.Get(hmacverify.EventHeader), r.Header.Get(hmacverify.IdempotencyKeyHeader)
	id := hmacverify.DeliveryID(event, r.Header.Get(hmacverify.SignatureHeader))
	event = strings.ToValidUTF8(fmt.Sprintf("%.100s", event), "?") // not signed, maybe long
	key = strings.ToValidUTF8(fmt.Sprintf("%.100s", key), "?")     // PostgreSQL rejects non-UTF-8
	logger := slog.With("id", id, "event", event, "key", key)
	result, err := s.insert(r.Context(), id, event, key, body)
	if err != nil {
		logger.Warn("trying again, with new connections", "err", err)
		result, err = s.insert(r.Context(), id, event, key, body)
	}
	if err != nil {
		logger.Error("not stored", "err", err)
		http.Error(w, "not stored", http.StatusInternalServerError)
		return
	}
	logger.Info(result)
	io.WriteString(w, "Success!")
}

const (
	limit  = 10 * time.Second // for the database to respond, in two attempts
	insert = `INSERT INTO deliveries (id, event, idempotency_key, body)
		VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO NOTHING`
	lookup = "SELECT body FROM deliveries WHERE id = $1 FOR SHARE" // waits for standbys, too
	// CREATE TABLE IF NOT EXISTS fails when several instances start at once, and
	// needs CREATE on the schema even if the table exists. BEGIN is for the trial.
	schema = `BEGIN; SELECT pg_advisory_xact_lock(7480083526);
		DO $$ BEGIN IF to_regclass('deliveries') IS NULL THEN CREATE TABLE deliveries (
			id text PRIMARY KEY, event text, idempotency_key text, body bytea,
			received timestamptz DEFAULT now()); END IF; END $$; COMMIT; BEGIN`
)

type store struct {
	mu     sync.Mutex
	pool   *pgxpool.Pool
	opened time.Time // when pool was, if renewed
}

func (s *store) insert(ctx context.Context, id, event, key string, body []byte) (string, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit/2) // the sender may leave
	defer cancel()
	s.mu.Lock()
	pool := s.pool
	s.mu.Unlock()
	result := "stored"
	tag, err := pool.Exec(ctx, insert, id, event, key, body)
	if err == nil && tag.RowsAffected() == 0 { // is it there, or did a trigger swallow it?
		result = "duplicate"
		err = pool.QueryRow(ctx, lookup, id).Scan(&body)
	}
	if err != nil {
		s.renew(pool)
	}
	return result, err
}

// renew replaces connections that may be dead, or read-only since a failover. pgx
// counts dead ones for 15 seconds, so it replaces an older pool, too.
func (s *store) renew(failed *pgxpool.Pool) {
	failed.Reset()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pool != failed || time.Since(s.opened) < limit/2 {
		return
	}
	s.pool, _ = pgxpool.NewWithConfig(context.Background(), failed.Config()) // valid: it was
	s.opened = time.Now()
	time.AfterFunc(limit, failed.Close) // no delivery uses it then
}

// open connects, creates the table if there is none, and tries the insertion.
func open(text string) (*store, error) {
	config, err := pgxpool.ParseConfig(text)
	_, reason, _ := strings.Cut(fmt.Sprint(err), "`: ") // after the URL
	switch {
	case !regexp.MustCompile(`^postgres(ql)?://\S*$`).MatchString(text),
		regexp.MustCompile(`^(failed to parse|invalid port)`).MatchString(reason),
		err == nil && strings.Contains(config.ConnConfig.Host+config.ConnConfig.Database, "@"):
		return nil, errors.New("not a URL like postgres://user:percent-encoded-password@host/database, " +
			"or a space, a line break, or an invalid port (PGPORT)") // err may show the password
	case err != nil:
		return nil, fmt.Errorf("a parameter, or a PG variable such as PGSSLMODE: %s", reason)
	}
	config.MaxConns = min(config.MaxConns, 10) // PostgreSQL allows 100 in total by default
	config.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false }
	c := config.ConnConfig
	c.DefaultQueryExecMode = pgx.QueryExecModeExec                         // for PgBouncer
	c.ConnectTimeout = min(cmp.Or(c.ConnectTimeout, limit), 2*time.Second) // for each address
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer conn.Close(ctx) // rolls the insertion back
	if _, err := conn.Exec(ctx, schema); err != nil {
		return nil, fmt.Errorf("create the table: %w", err)
	}
	long, body := strings.Repeat("0", 100), []byte("\x00\xff") // no event or key is longer
	id := long[:81-26] + rand.Text()                           // as long as an ID can be
	if _, err := conn.Exec(ctx, insert, id, long, long, body); err != nil {
		return nil, fmt.Errorf("try an insertion: %w", err)
	}
	var stored []byte
	err = conn.QueryRow(ctx, lookup, id).Scan(&stored)
	if err != nil || !bytes.Equal(stored, body) {
		return nil, fmt.Errorf("read the row back (trigger, rule, body not bytea?): %q, %v", stored, err)
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	return &store{pool: pool}, err
}

// serve returns after a signal, once all requests have a response.
func serve(addr string, handler http.Handler) {
	signal.Ignore(syscall.SIGPIPE) // if the log's reader is gone, go on without it
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // nohup ignores it
		ctx, _ = signal.NotifyContext(ctx, syscall.SIGHUP) // a closed terminal may send two
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		log.Fatalf("-addr or PORT: %v", err)
	}
	server := &http.Server{
		Handler:      handler,
		ReadTimeout:  10 * time.Second,
		WriteTimeout: limit + 15*time.Second, // 10 for the body, 5 to respond
		IdleTimeout:  11 * time.Minute,       // proxies reuse connections for up to 10 minutes
	}
	go func() {
		if err := server.Serve(listener); err != http.ErrServerClosed {
			log.Fatal(err)
		}
	}()
	slog.Info("listening", "addr", listener.Addr().String())
	<-ctx.Done()
	stop() // a second signal ends the program at once
	slog.Info("shutting down")
	server.Shutdown(context.Background())
}
