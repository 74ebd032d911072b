// Inbox puts each of Guuru's webhooks on disk before it answers, so that none that was
// answered with 200 is lost in a crash, and each is there once. What works on them
// reads the file: one line of JSON for each delivery, the body in Base64.
//
//	GUURU_SECRET=secr3t go run ./examples/inbox -file inbox.jsonl
//	tail -f inbox.jsonl | jq '.body | @base64d | fromjson'
//
// One process for each file: a second one would not know of what the first wrote. The
// process holds the event and the signature of every delivery in memory.
//
// Past one machine, a table in the database that you already run takes the place of
// the file: INSERT … ON CONFLICT DO NOTHING, with a unique key over event and
// signature, and any number of receivers in front. The README has that handler.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"example.com/hmacverify"
	"example.com/hmacverify/examples/internal/service"
)

func main() {
	addr := flag.String("addr", ":8000", "listen on this `host:port`")
	name := flag.String("file", "inbox.jsonl", "append deliveries to this `file`")
	flag.Parse()

	rc := service.Receiver()
	in, err := openInbox(*name)
	if err != nil {
		log.Fatal(err)
	}
	service.Serve(*addr, rc.Handler(in))
}

// A delivery is a line of the file.
type delivery struct {
	Time           time.Time  `json:"time"` // of receipt
	Event          string     `json:"event"`
	IdempotencyKey string     `json:"idempotencyKey"`
	Signature      string     `json:"signature"` // of Body
	Body           []byte     `json:"body"`      // any bytes: JSON has them in Base64
	done           chan error // tells what came of it
}

// key is what a delivery and its repetition have in common. Guuru's idempotency key is
// not in it, because the signature does not cover it.
func (d delivery) key() string { return d.Signature + d.Event }

type inbox struct {
	file interface { // an *os.File
		io.Writer
		Sync() error
		Truncate(size int64) error
	}
	size    int64           // of what is on disk
	onDisk  map[string]bool // by key
	waiting chan delivery
}

// ServeHTTP answers an authentic request when it is on disk.
func (in *inbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err == nil {
		d := delivery{
			Time: time.Now().UTC(),
			// As JSON spells what is not UTF-8, or it is another event after a restart.
			Event:          string([]rune(r.Header.Get(hmacverify.EventHeader))),
			IdempotencyKey: r.Header.Get(hmacverify.IdempotencyKeyHeader),
			Signature:      r.Header.Get(hmacverify.SignatureHeader),
			Body:           body,
			done:           make(chan error, 1),
		}
		in.waiting <- d
		err = <-d.done
	}
	service.Answer(w, err)
}

// write puts all deliveries that wait on disk together, so that they share a sync.
func (in *inbox) write() {
	for d := range in.waiting {
		batch := []delivery{d}
		for range len(in.waiting) {
			batch = append(batch, <-in.waiting)
		}
		var lines bytes.Buffer
		added := make(map[string]bool)
		for _, d := range batch {
			if key := d.key(); !in.onDisk[key] && !added[key] {
				json.NewEncoder(&lines).Encode(d) // no type in it fails, nor does memory
				added[key] = true
			}
		}
		var err error
		if len(added) > 0 {
			err = in.append(lines.Bytes())
		}
		if err == nil {
			maps.Copy(in.onDisk, added)
		}
		for _, d := range batch {
			if in.onDisk[d.key()] {
				d.done <- nil // the repetition of what is there is taken, whatever err is
			} else {
				d.done <- err
			}
		}
	}
}

// append puts lines on disk, or leaves the file as it was.
func (in *inbox) append(lines []byte) error {
	_, err := in.file.Write(lines)
	if err == nil {
		err = in.file.Sync()
	}
	if err == nil {
		in.size += int64(len(lines))
	} else if undo := in.file.Truncate(in.size); undo != nil {
		log.Fatal(errors.Join(err, undo)) // the next start drops the half line
	}
	return err
}

// openInbox opens or makes the file called name. It drops a last line that a crash cut
// short: its sender was not answered.
func openInbox(name string) (*inbox, error) {
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	in := &inbox{file: file, onDisk: make(map[string]bool), waiting: make(chan delivery, 1000)}
	lines := bufio.NewReader(file)
	line, err := lines.ReadBytes('\n')
	for n := 1; err == nil; n++ {
		var d delivery
		if err := json.Unmarshal(line, &d); err != nil {
			return nil, fmt.Errorf("%s, line %d: %w", name, n, err)
		}
		in.onDisk[d.key()] = true
		in.size += int64(len(line))
		line, err = lines.ReadBytes('\n')
	}
	if err != io.EOF {
		return nil, err
	}
	if len(line) > 0 {
		slog.Warn("dropped a line that was cut short", "file", name, "bytes", len(line))
	}
	// What was written before a crash may be on no disk yet, and neither the file's name.
	if err := errors.Join(file.Truncate(in.size), file.Sync()); err != nil {
		return nil, err
	}
	if dir, err := os.Open(filepath.Dir(name)); err == nil {
		dir.Sync() // not every system can
		dir.Close()
	}
	go in.write()
	return in, nil
}
