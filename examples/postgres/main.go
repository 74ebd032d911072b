// Postgres stores each of Guuru's webhooks once in PostgreSQL before it responds
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
// get 500, but is stored. A container needs a grace period of 25 seconds.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"example.com/hmacverify"
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
		text := err.Error() // a line for each address and attempt; the last one counts
		log.Fatalf("DATABASE_URL: %s", strings.TrimSpace(text[strings.LastIndex(text, "\n")+1:]))
	}
	serve(*addr, rc.Handler(http.HandlerFunc(store{pool}.deliver)))
	// The pool stays open: closing it could wait for a database that hangs.
}

const limit = 10 * time.Second // for the database to respond

type store struct{ pool *pgxpool.Pool }

const insert = `INSERT INTO deliveries (id, event, idempotency_key, body)
	VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO NOTHING`

// deliver receives only requests with a valid signature.
func (s store) deliver(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body) // from memory, so there is no error
	// PostgreSQL rejects text that is not UTF-8.
	event := strings.ToValidUTF8(r.Header.Get(hmacverify.EventHeader), "?")
	key := strings.ToValidUTF8(r.Header.Get(hmacverify.IdempotencyKeyHeader), "?")
	id := hmacverify.DeliveryID(event, r.Header.Get(hmacverify.SignatureHeader))
	logger := slog.With("id", id, "event", event, "key", key)
	// A sender that disconnects does not cancel the insertion.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), limit)
	defer cancel()
	tag, err := s.pool.Exec(ctx, insert, id, event, key, body)
	if err != nil {
		logger.Error("not stored", "err", err)
		http.Error(w, "not stored", http.StatusInternalServerError)
		return
	}
	if tag.RowsAffected() == 0 {
		logger.Info("duplicate")
	} else {
		logger.Info("stored")
	}
	io.WriteString(w, "Success!")
}

// CREATE TABLE IF NOT EXISTS fails when several instances start at once, and
// needs CREATE on the schema even if the table exists.
const schema = `SELECT pg_advisory_xact_lock(7480083526);
	DO $$ BEGIN IF to_regclass('deliveries') IS NULL THEN CREATE TABLE deliveries (
		id text PRIMARY KEY, event text, idempotency_key text, body bytea,
		received timestamptz DEFAULT now()); END IF; END $$`

// open connects, creates the table if there is none, and tries the insertion.
func open(text string) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(text)
	switch _, urlErr := url.Parse(text); { // do not show text or err: it may have the password
	case strings.ContainsAny(text, "\r\n"):
		return nil, errors.New("contains a line break")
	case !strings.HasPrefix(text, "postgres"), err != nil && urlErr != nil,
		err == nil && strings.Contains(config.ConnConfig.Host+config.ConnConfig.Database, "@"):
		return nil, errors.New("not a URL like postgres://user:percent-encoded-password@host/database")
	case err != nil:
		_, why, _ := strings.Cut(err.Error(), "`: ")
		return nil, errors.New(strings.Replace(why, "failed to configure TLS", "sslmode, sslrootcert", 1))
	}
	config.MaxConns = min(config.MaxConns, 10) // PostgreSQL allows 100 in total by default
	config.ConnConfig.ConnectTimeout = limit
	config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec // PgBouncer shares connections
	// Skip connections that died, for example when the server restarted.
	config.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return true }
	config.PingTimeout = 2 * time.Second
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	if _, err := pool.Exec(ctx, schema); err != nil { // in one transaction
		return nil, err
	}
	event, sig := hmacverify.EventChatTransferred, strings.Repeat("0", 64) // the longest ID
	var trial pgx.Batch
	trial.Queue("BEGIN")
	trial.Queue(insert, hmacverify.DeliveryID(event, sig), event, sig, []byte("{}"))
	trial.Queue("ROLLBACK")
	return pool, pool.SendBatch(ctx, &trial).Close()
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
