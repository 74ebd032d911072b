// Inbox stores each delivery from Guuru before it responds with 200. Each file
// holds one body, byte for byte, and its name is the DeliveryID plus .json.
//
//	GUURU_SECRET=secr3t go run ./examples/inbox
//	jq -c '[.rating, .question]' deliveries/chat-rated-*.json
//
// Move or delete only *.json. Once a file is gone, its delivery can be stored
// again. Several processes can share a directory; on several machines, use
// examples/postgres. On filesystems other than ext4, XFS, and Btrfs, a crash may
// lose files. On SIGTERM, give a container a minute to finish requests.
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
	"syscall"
	"time"

	"example.com/hmacverify"
)

var dir = flag.String("dir", "deliveries", "store deliveries in this `directory`")

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
	if err := prepare(); err != nil {
		log.Fatalf("-dir must take files, hard links, and syncs: %v", err)
	}
	clean()
	serve(*addr, rc.Handler(http.HandlerFunc(deliver)))
}

// deliver receives only requests with a valid signature.
func deliver(w http.ResponseWriter, r *http.Request) {
	event, sig := r.Header.Get(hmacverify.EventHeader), r.Header.Get(hmacverify.SignatureHeader)
	file := filepath.Join(*dir, hmacverify.DeliveryID(event, sig)+".json")
	logger := slog.With("file", file, "event", fmt.Sprintf("%.100s", event), // unsigned, like the key
		"key", fmt.Sprintf("%.100s", r.Header.Get(hmacverify.IdempotencyKeyHeader)))
	body, _ := io.ReadAll(r.Body) // from memory, so there is no error
	result, err := "stored", add(file, body)
	if errors.Is(err, os.ErrExist) {
		result, err = "duplicate", compare(file, body)
	}
	if err == nil { // also for a duplicate: what linked it may not have synced yet
		err = syncDir(*dir)
	}
	if err != nil {
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
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Link(f.Name(), file)
}

// compare returns an error unless file holds body.
func compare(file string, body []byte) error {
	info, err := os.Stat(file)
	if err == nil && (!info.Mode().IsRegular() || info.Size() != int64(len(body))) {
		return os.ErrExist // reading a FIFO would wait for a writer
	}
	text, err := os.ReadFile(file)
	if err == nil && string(text) != string(body) {
		return os.ErrExist
	}
	return err
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
	return errors.Join(d.Sync(), d.Close())
}

// prepare makes the directory, and tries in it what a delivery needs.
func prepare() error {
	made, synced := os.Mkdir(*dir, 0o700), syncDir(filepath.Join(*dir, "..")) // also for an old one
	if made != nil && !errors.Is(made, os.ErrExist) {
		return made
	}
	if made == nil && synced != nil { // the parent of an old one may be unreadable
		return errors.Join(synced, os.Remove(*dir)) // so that the next start fails, too
	}
	trial := filepath.Join(*dir, fmt.Sprint(".inbox-tmp-", time.Now().UnixNano()))
	if err := add(trial, nil); err != nil {
		return err
	}
	return errors.Join(os.Remove(trial), syncDir(*dir))
}

// clean removes the temporary files that crashes left.
func clean() {
	d, _ := os.Open(*dir) // nil if that fails, and then without entries
	defer d.Close()
	temporary := regexp.MustCompile(`^\.inbox-tmp-\d+$`)
	for e, err := d.ReadDir(1); err == nil; e, err = d.ReadDir(1) { // one by one saves memory
		if temporary.MatchString(e[0].Name()) && e[0].Type().IsRegular() {
			if info, err := e[0].Info(); err == nil && time.Since(info.ModTime()) > time.Hour {
				os.Remove(filepath.Join(*dir, info.Name())) // a recent one may be in use
			}
		}
	}
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
