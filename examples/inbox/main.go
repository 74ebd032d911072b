// Inbox stores each of Guuru's webhooks in a file before it responds with 200:
// exactly once, after any crash. Each line is JSON, with the body in Base64. A
// delivery costs one disk sync, and its key stays in memory. The same event
// with the same bytes counts once. For several machines, see README.md.
//
//	GUURU_SECRET=secr3t go run ./examples/inbox -file inbox.jsonl
//	tail -f inbox.jsonl | jq '.body | @base64d | fromjson'
package main

import (
	"bytes"
	"context"
	"encoding/json"
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
	"strings"
	"sync"
	"syscall"
	"time"

	"example.com/hmacverify"
)

func main() {
	addr := flag.String("addr", ":8000", "listen on this `host:port`")
	name := flag.String("file", "inbox.jsonl", "append deliveries to this `file`")
	flag.Parse()
	if flag.NArg() > 0 {
		log.Fatalf("unexpected argument %q", flag.Arg(0))
	}
	secrets := []string{os.Getenv("GUURU_SECRET")}
	if previous := os.Getenv("GUURU_SECRET_PREVIOUS"); previous != "" {
		secrets = append(secrets, previous) // until the rotation is over
	}
	rc, err := hmacverify.New(secrets...)
	check("GUURU_SECRET", err)
	rc.ErrorHandler = func(w http.ResponseWriter, r *http.Request, err error) {
		slog.Warn("rejected", "from", r.RemoteAddr, "err", err)
		hmacverify.DefaultErrorHandler(w, r, err)
	}
	listener, err := net.Listen("tcp", *addr) // a second start on addr fails here
	check("listen", err)
	server := &http.Server{
		Handler:        rc.Handler(open(*name)),
		ReadTimeout:    10 * time.Second,
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
	check("shut down", server.Shutdown(context.Background()))
}

func check(what string, err error) {
	if err != nil {
		log.Fatalf("%s: %v", what, err)
	}
}

type delivery struct {
	Time           time.Time `json:"time"` // of receipt
	Event          string    `json:"event"`
	IdempotencyKey string    `json:"idempotencyKey"`
	Signature      string    `json:"signature"`
	Body           []byte    `json:"body"`
}

// key identifies a delivery. Events are not signed, so only known ones count.
func key(event, signature string) string {
	switch event {
	case hmacverify.EventChatAssigned, hmacverify.EventChatOpened, hmacverify.EventChatClosed,
		hmacverify.EventChatReopened, hmacverify.EventChatTransferred,
		hmacverify.EventChatRated, hmacverify.EventMessageCreated:
		return signature + event
	}
	return signature
}

type inbox struct {
	mu     sync.Mutex
	file   *os.File
	size   int64 // of the stored lines
	stored map[string]bool
}

func (in *inbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body) // from memory
	err := in.store(delivery{
		Time:           time.Now().UTC(),
		Event:          r.Header.Get(hmacverify.EventHeader),
		IdempotencyKey: r.Header.Get(hmacverify.IdempotencyKeyHeader),
		Signature:      r.Header.Get(hmacverify.SignatureHeader),
		Body:           body,
	})
	if err != nil {
		slog.Error("not stored", "err", err, "signature", r.Header.Get(hmacverify.SignatureHeader))
		http.Error(w, "not stored", http.StatusInternalServerError)
		return
	}
	io.WriteString(w, "Success!")
}

// store puts d on disk, or leaves the file as it was.
func (in *inbox) store(d delivery) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.stored[key(d.Event, d.Signature)] {
		return nil
	}
	line, _ := json.Marshal(d) // cannot fail
	in.checkSize(0)
	n, err := in.file.Write(append(line, '\n'))
	err = errors.Join(err, in.file.Sync())
	in.checkSize(n)
	if err != nil {
		if n > 0 {
			check("undo", in.file.Truncate(in.size))
		}
		return err
	}
	in.size += int64(n)
	in.stored[key(d.Event, d.Signature)] = true
	return nil
}

// checkSize ends the program unless the file grew by just our n new bytes.
func (in *inbox) checkSize(n int) {
	info, err := in.file.Stat()
	check("stat", err)
	if info.Size() != in.size+int64(n) {
		log.Fatalf("%s: another process writes to it", in.file.Name())
	}
}

// format matches a line, and a truncated one completed by an end of sample.
var format = regexp.MustCompile(`^{"time":"[-\dT:.]+Z","event":"((?:\\.|[^\\"\x00-\x1f])*)",` +
	`"idempotencyKey":"(?:\\.|[^\\"\x00-\x1f])*","signature":"([\da-f]{64})","body":"[\w+/]+=*"}\n$`)
var sample = `{"time":"00Z","event":"0","idempotencyKey":"0","signature":"` +
	strings.Repeat("0", 64) + "\",\"body\":\"0\"}\n"

// open opens or creates the file. It drops only a line that a crash cut short.
func open(name string) *inbox {
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	check("open", err)
	text, err := io.ReadAll(file)
	check("read", err)
	in := &inbox{file: file, stored: make(map[string]bool)}
	for line := range bytes.SplitAfterSeq(text, []byte("\n")) {
		match := format.FindSubmatch(line)
		if match == nil {
			break
		}
		in.size += int64(len(line))
		in.stored[key(string(match[1]), string(match[2]))] = true
	}
	if rest := string(text[in.size:]); rest != "" {
		if strings.HasSuffix(rest, "\x00") {
			log.Fatalf("%s: NUL bytes after byte %d, as a power loss leaves them", name, in.size)
		}
		for end := len(sample); !format.MatchString(rest + sample[end:]); end-- {
			if end == 0 {
				log.Fatalf("%s: after byte %d, it is not an inbox", name, in.size)
			}
		}
		in.checkSize(len(rest))
		check("truncate", file.Truncate(in.size))
		slog.Warn("dropped a line that was cut short", "file", name, "bytes", len(rest))
	}
	check("sync", file.Sync()) // duplicates of these lines get 200
	dir, err := os.Open(filepath.Dir(name))
	check("open", err)
	dir.Sync() // a new file's name, where supported
	dir.Close()
	return in
}
