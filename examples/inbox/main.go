// Inbox stores each of Guuru's webhooks before it responds with 200. Each file
// holds one body, byte for byte, and its name is the DeliveryID plus .json.
//
//	GUURU_SECRET=secr3t go run ./examples/inbox
//	jq -c '[.rating, .question]' deliveries/chat-rated-*.json
//
// Once you delete a file, its delivery can be stored again. Several processes
// can share a directory. For several machines, use examples/postgres. Use ext4,
// XFS, or Btrfs: on other filesystems, a crash may lose what was stored.
// A container needs a grace period of a minute.
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
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"syscall"
	"time"

	"example.com/hmacverify"
)

func main() {
	addr := flag.String("addr", ":"+cmp.Or(os.Getenv("PORT"), "8000"), "listen on this `host:port`")
	dir := flag.String("dir", "deliveries", "store deliveries in this `directory`")
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
	in := inbox{*dir}
	if err := in.prepare(); err != nil {
		log.Fatal(err)
	}
	serve(*addr, rc.Handler(http.HandlerFunc(in.deliver)))
}

type inbox struct{ dir string }

// deliver receives only requests with a valid signature.
func (in inbox) deliver(w http.ResponseWriter, r *http.Request) {
	event, sig := r.Header.Get(hmacverify.EventHeader), r.Header.Get(hmacverify.SignatureHeader)
	file := filepath.Join(in.dir, hmacverify.DeliveryID(event, sig)+".json")
	logger := slog.With("file", file, "event", event, // neither it nor the key is signed
		"key", r.Header.Get(hmacverify.IdempotencyKeyHeader))
	body, _ := io.ReadAll(r.Body) // from memory, so there is no error
	result, err := "stored", add(file, body)
	if errors.Is(err, os.ErrExist) {
		if text, _ := os.ReadFile(file); string(text) == string(body) {
			result, err = "duplicate", nil
		}
	}
	// Also for a duplicate: what linked it may not have synced yet.
	if err = cmp.Or(err, syncDir(in.dir)); err != nil {
		logger.Error("not stored", "err", err)
		http.Error(w, "not stored", http.StatusInternalServerError)
		return
	}
	logger.Info(result)
	io.WriteString(w, "Success!")
}

// add links file once body is durable. A link, unlike a rename, never replaces.
func add(file string, body []byte) error {
	if _, err := os.Lstat(file); err == nil {
		return os.ErrExist
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".inbox-tmp-") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(body)
	if err := cmp.Or(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Link(f.Name(), file)
}

// syncDir makes the names in a directory durable, except on Windows.
func syncDir(name string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// prepare makes the directory, stores in it, and removes what crashes left in it.
func (in inbox) prepare() error {
	err := cmp.Or(os.Mkdir(in.dir, 0o700), syncDir(filepath.Join(in.dir, "..")))
	if err != nil && !errors.Is(err, os.ErrExist) { // the parent of an old one may be unreadable
		return err
	}
	trial := filepath.Join(in.dir, fmt.Sprint(".inbox-tmp-", time.Now().UnixNano()))
	d, err := os.Open(in.dir)
	if err := cmp.Or(err, add(trial, nil), os.Remove(trial)); err != nil {
		return fmt.Errorf("-dir must take files and hard links: %w", err)
	}
	defer d.Close()
	temporary := regexp.MustCompile(`^\.inbox-tmp-\d+$`).MatchString
	for names, err := d.Readdirnames(1000); err == nil; names, err = d.Readdirnames(1000) {
		for _, name := range slices.DeleteFunc(names, func(s string) bool { return !temporary(s) }) {
			info, err := os.Lstat(filepath.Join(in.dir, name)) // a recent one may be in use
			if err == nil && info.Mode().IsRegular() && time.Since(info.ModTime()) > time.Hour {
				os.Remove(filepath.Join(in.dir, name))
			}
		}
	}
	return nil
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
		WriteTimeout: time.Minute,      // the disk may be slow
		IdleTimeout:  11 * time.Minute, // proxies reuse connections for up to 10 minutes
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
