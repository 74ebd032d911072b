// Inbox stores each of Guuru's webhooks before it responds with 200. Each file
// holds one body, byte for byte, and its name is the DeliveryID plus .json.
//
//	GUURU_SECRET=secr3t go run ./examples/inbox -dir inbox
//	jq -c '[.rating, .question]' inbox/chat-rated-*.json
//	GUURU_SECRET=secr3t go run ./examples/send inbox/chat-rated-*.json # again
//
// Once you delete a file, its delivery can be stored again. Several processes
// can share a directory. For several machines, use examples/postgres.
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
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"syscall"
	"time"

	"example.com/hmacverify"
)

var dir = flag.String("dir", "inbox", "store deliveries in this `directory`")

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
	if err != nil {
		log.Fatalf("GUURU_SECRET: %v", err)
	}
	listener, err := net.Listen("tcp", *addr)
	check(err)
	prepare()
	server := &http.Server{
		Handler:        rc.Handler(http.HandlerFunc(deliver)),
		ReadTimeout:    10 * time.Second,
		WriteTimeout:   time.Minute,      // the disk may be slow
		IdleTimeout:    11 * time.Minute, // proxies reuse connections for up to 10
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
	check(server.Shutdown(context.Background()))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// prepare makes the directory if it is missing, checks that it takes new files,
// and removes temporary files left by crashes.
func prepare() {
	made, synced := os.Mkdir(*dir, 0o700), syncDir(filepath.Join(*dir, ".."))
	if !errors.Is(made, os.ErrExist) { // an old one's parent may be unreadable
		check(cmp.Or(made, synced))
	}
	f, err := os.CreateTemp(*dir, ".inbox-tmp-")
	check(err)
	f.Close()
	check(os.Remove(f.Name()))
	entries, err := os.ReadDir(*dir)
	check(err)
	temporary := regexp.MustCompile(`^\.inbox-tmp-\d+$`)
	for _, entry := range entries {
		if temporary.MatchString(entry.Name()) {
			info, err := entry.Info() // a recent one may be in use
			if err == nil && info.Mode().IsRegular() && time.Since(info.ModTime()) > time.Hour {
				os.Remove(filepath.Join(*dir, entry.Name()))
			}
		}
	}
}

// deliver receives only requests with a valid signature.
func deliver(w http.ResponseWriter, r *http.Request) {
	event, sig := r.Header.Get(hmacverify.EventHeader), r.Header.Get(hmacverify.SignatureHeader)
	file := filepath.Join(*dir, hmacverify.DeliveryID(event, sig)+".json")
	logger := slog.With("file", file, "event", event, // neither it nor the key is signed
		"key", r.Header.Get(hmacverify.IdempotencyKeyHeader))
	body, _ := io.ReadAll(r.Body) // from memory
	result, err := "stored", add(file, body)
	if errors.Is(err, os.ErrExist) {
		if text, _ := os.ReadFile(file); string(text) == string(body) {
			result, err = "duplicate", nil
		}
	}
	// Also for a duplicate: what linked it may not have synced yet.
	if err = cmp.Or(err, syncDir(*dir)); err != nil {
		logger.Error("not stored", "err", err)
		http.Error(w, "not stored", http.StatusInternalServerError)
		return
	}
	logger.Info(result)
	io.WriteString(w, "Success!")
}

// add links file once body is durable. Unlike a rename, a link never replaces a
// file. On a filesystem without links, such as FAT, every delivery gets 500.
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
	d, err := os.Open(name)
	if err == nil && runtime.GOOS != "windows" {
		err = d.Sync()
	}
	d.Close() // d may be nil
	return err
}
