// Postgres stores each of Guuru's webhooks once in PostgreSQL before it responds
// with 200. Any number of instances can run behind a load balancer:
//
//	cd examples/postgres
//	export DATABASE_URL=postgres://user:password@localhost:5432/database
//	GUURU_SECRET=secr3t go run .
//	psql "$DATABASE_URL" -c "SELECT id, convert_from(body, 'UTF8')::jsonb FROM deliveries"
//
// The first start needs CREATE on the schema. Later, SELECT and INSERT on the
// table are enough. To rotate the secret, also set GUURU_SECRET_PREVIOUS.
package main

import (
	"context"
	"flag"
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

	"github.com/jackc/pgx/v5/pgxpool"

	"example.com/hmacverify"
)

const limit = 10 * time.Second // for the database to respond
var pool *pgxpool.Pool

func main() {
	addr := flag.String("addr", ":8000", "listen on this `host:port`")
	flag.Parse()
	if flag.NArg() > 0 {
		log.Fatalf("unexpected argument %q", flag.Arg(0))
	}
	secrets := []string{os.Getenv("GUURU_SECRET")}
	if previous := os.Getenv("GUURU_SECRET_PREVIOUS"); previous != "" {
		secrets = append(secrets, previous)
	}
	rc, err := hmacverify.New(secrets...)
	check("GUURU_SECRET", err)
	open(os.Getenv("DATABASE_URL"))
	listener, err := net.Listen("tcp", *addr)
	check("-addr", err)
	server := &http.Server{
		Handler:        rc.Handler(http.HandlerFunc(deliver)),
		ReadTimeout:    10 * time.Second,
		WriteTimeout:   limit + 15*time.Second, // 10 for the body, 5 to respond
		IdleTimeout:    11 * time.Minute,       // proxies reuse connections for up to 10
		MaxHeaderBytes: 16 << 10,
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	go func() {
		if err := server.Serve(listener); err != http.ErrServerClosed {
			log.Fatal(err)
		}
	}()
	slog.Info("listening", "addr", listener.Addr().String())
	<-ctx.Done()
	stop() // a second signal ends the program at once
	// The pool stays open: closing it could wait for a database that hangs.
	check("shut down", server.Shutdown(context.Background()))
}

func check(what string, err error) {
	if err != nil {
		log.Fatalf("%s: %s", what, strings.Join(strings.Fields(err.Error()), " ")) // one line
	}
}

// CREATE TABLE IF NOT EXISTS fails when several instances start at once, and
// needs CREATE on the schema even if the table exists.
const schema = `
	SELECT pg_advisory_xact_lock(7480083526);
	DO $$ BEGIN IF to_regclass('deliveries') IS NULL THEN
		CREATE TABLE deliveries (id text PRIMARY KEY, event text,
			idempotency_key text, body bytea, received timestamptz DEFAULT now());
	END IF; END $$`

// open connects pool to the database and creates the table if there is none.
func open(url string) {
	scheme, _, _ := strings.Cut(url, "://")
	config, err := pgxpool.ParseConfig(url)
	if err != nil || scheme != "postgres" && scheme != "postgresql" ||
		strings.Contains(config.ConnConfig.Host+config.ConnConfig.Database, "@") {
		// Print neither err nor the URL: either may contain the password.
		log.Fatal("DATABASE_URL is not a URL like postgres://user:password@localhost:5432/database")
	}
	config.MaxConns = min(config.MaxConns, 10) // PostgreSQL allows 100 in total by default
	config.ConnConfig.ConnectTimeout = limit
	// Skip connections that died when the server restarted.
	config.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return true }
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	pool, err = pgxpool.NewWithConfig(ctx, config)
	check("DATABASE_URL", err)
	_, err = pool.Exec(ctx, schema) // in one transaction
	check("DATABASE_URL", err)
}

// deliver receives only requests with a valid signature.
func deliver(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body) // in memory, so there is no error
	// PostgreSQL rejects text that is not UTF-8.
	event := strings.ToValidUTF8(r.Header.Get(hmacverify.EventHeader), "?")
	key := strings.ToValidUTF8(r.Header.Get(hmacverify.IdempotencyKeyHeader), "?")
	id := hmacverify.DeliveryID(event, r.Header.Get(hmacverify.SignatureHeader))
	logger := slog.With("id", id, "event", event, "key", key)
	// A sender that disconnects does not cancel the insertion.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), limit)
	defer cancel()
	tag, err := pool.Exec(ctx, `INSERT INTO deliveries (id, event, idempotency_key, body)
		VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO NOTHING`, id, event, key, body)
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
