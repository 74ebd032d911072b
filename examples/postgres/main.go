// Postgres stores each delivery from Guuru once in PostgreSQL before it responds
// with 200, also behind PgBouncer:
//
//	cd examples/postgres
//	export DATABASE_URL=postgres://user:password@localhost:5432/database
//	GUURU_SECRET=secr3t go run .
//	psql "$DATABASE_URL" -c "SELECT id, encode(body, 'escape') FROM deliveries"
//
// The first start needs CREATE on the schema, later ones SELECT and INSERT on the
// table. Each instance opens up to 10 connections. Where the role or the server
// allows fewer, deliveries get 500: add ?pool_max_conns=2 to the URL. Where
// transactions are serializable by default, one of two concurrent duplicates may
// get 500, but is stored. With synchronous_commit = off, or in an UNLOGGED table,
// a crash of the server may lose what was stored. On SIGTERM it finishes requests
// in progress: give a container 25 seconds to stop.
package main

import (
	"cmp"
	"context"
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
	"strings"
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
	pool, err := open(os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal("DATABASE_URL: ", strings.Join(strings.Fields(err.Error()), " ")) // one line
	}
	serve(*addr, rc.Handler(http.HandlerFunc(store{pool}.deliver))) // pool.Close could hang
}

type store struct{ pool *pgxpool.Pool }

const limit = 10 * time.Second // for the database to respond
const insert = `INSERT INTO deliveries (id, event, idempotency_key, body)
	VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO NOTHING`

// deliver receives only requests with a valid signature.
func (s store) deliver(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body) // from memory, so there is no error
	event, key := r.Header.Get(hmacverify.EventHeader), r.Header.Get(hmacverify.IdempotencyKeyHeader)
	id := hmacverify.DeliveryID(event, r.Header.Get(hmacverify.SignatureHeader))
	event = strings.ToValidUTF8(event[:min(len(event), 100)], "?") // not signed, maybe long
	key = strings.ToValidUTF8(key[:min(len(key), 100)], "?")       // PostgreSQL rejects non-UTF-8
	logger := slog.With("id", id, "event", event, "key", key)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), limit)
	defer cancel()
	tag, err := s.pool.Exec(ctx, insert, id, event, key, body) // even if the sender disconnects
	result := "stored"
	if err == nil && tag.RowsAffected() == 0 { // is it there, or did a trigger swallow it?
		result = "duplicate"
		err = s.pool.QueryRow(ctx, "SELECT id FROM deliveries WHERE id = $1", id).Scan(&id)
	}
	if err != nil {
		logger.Error("not stored", "err", err)
		http.Error(w, "not stored", http.StatusInternalServerError)
		return
	}
	logger.Info(result)
	io.WriteString(w, "Success!")
}

// CREATE TABLE IF NOT EXISTS fails when several instances start at once, and
// needs CREATE on the schema even if the table exists. BEGIN is for the trial.
const schema = `BEGIN; SELECT pg_advisory_xact_lock(7480083526);
	DO $$ BEGIN IF to_regclass('deliveries') IS NULL THEN CREATE TABLE deliveries (
		id text PRIMARY KEY, event text, idempotency_key text, body bytea,
		received timestamptz DEFAULT now()); END IF; END $$; COMMIT; BEGIN`

// open connects, creates the table if there is none, and tries the insertion.
func open(text string) (*pgxpool.Pool, error) {
	if strings.ContainsAny(text, "\r\n") {
		return nil, errors.New("contains a line break")
	}
	scheme, _, _ := strings.Cut(text, "://")
	config, err := pgxpool.ParseConfig(text) // do not show err: it may have the password
	if err != nil || scheme != "postgres" && scheme != "postgresql" ||
		strings.Contains(config.ConnConfig.Host+config.ConnConfig.Database, "@") {
		return nil, errors.New("not a URL like postgres://user:percent-encoded-password@host/database, " +
			"or sslmode, sslrootcert, connect_timeout, or another parameter is invalid")
	}
	config.MaxConns = min(config.MaxConns, 10) // PostgreSQL allows 100 in total by default
	config.ConnConfig.ConnectTimeout = limit
	config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec // PgBouncer shares connections
	// Skip connections that died, for example when the server restarted.
	config.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return true }
	config.PingTimeout = time.Second
	config.BeforeClose = func(c *pgx.Conn) {
		if c.IsClosed() { // otherwise pgx and the pool may keep it for 15 seconds
			c.PgConn().Conn().Close()
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, config.ConnConfig)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer conn.Close(ctx) // rolls the insertion back
	if _, err := conn.Exec(ctx, schema); err != nil {
		return nil, fmt.Errorf("create the table: %w", err)
	}
	zeros := strings.Repeat("0", 100) // no ID, event, or key is longer
	tag, err := conn.Exec(ctx, insert, zeros[:81], zeros, zeros, []byte("{}"))
	if err != nil {
		return nil, fmt.Errorf("try an insertion: %w", err)
	}
	if tag.RowsAffected() != 1 {
		return nil, errors.New("try an insertion: a trigger or rule swallows rows")
	}
	return pgxpool.NewWithConfig(ctx, config)
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
