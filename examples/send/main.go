// Send tests a receiver without waiting for a chat. It signs files and posts
// them the way Guuru documents:
//
//	GUURU_SECRET=secr3t go run ./examples/send -url http://localhost:8000 testdata/*.json
//
// A file named - means standard input. Send prints the beginning of the response
// to each file, and exits with 1 unless all of them are 2xx.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	neturl "net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"example.com/hmacverify"
)

func main() {
	url := flag.String("url", "http://localhost:8000", "post to this `URL`")
	event := flag.String("event", hmacverify.EventChatRated, "send this X-Guuru-Event")
	flag.Parse()
	if flag.NArg() == 0 {
		log.Fatal("no file to send")
	}
	u, err := neturl.Parse(*url)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "http" && u.Scheme != "https" {
		log.Fatal("-url is not a URL like http://localhost:8000, without a password")
	}
	secret := os.Getenv("GUURU_SECRET")
	if _, err := hmacverify.New(secret); err != nil { // only checks the secret
		log.Fatalf("GUURU_SECRET: %v", err)
	}

	status := 0
	for _, file := range flag.Args() {
		response, err := send(*url, secret, *event, file)
		if err != nil {
			response = "error: " + err.Error()
		}
		if response[0] != '2' {
			status = 1
		}
		if _, err := fmt.Println(oneLine(file + " " + response)); err != nil {
			log.Fatal(err)
		}
	}
	os.Exit(status)
}

// oneLine escapes control characters, which a file's name may contain.
func oneLine(s string) string {
	quote := func(c string) string { return strings.Trim(fmt.Sprintf("%+q", c), `"`) }
	control := regexp.MustCompile(`[\pC\p{Zl}\p{Zp}]`)
	return control.ReplaceAllStringFunc(strings.ToValidUTF8(s, "?"), quote)
}

// send posts file, and returns the status and the beginning of the response.
func send(url, secret, event, file string) (string, error) {
	body, err := read(file)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	r, _ := http.NewRequestWithContext(ctx, "POST", url, bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set(hmacverify.EventHeader, event)
	r.Header.Set(hmacverify.IdempotencyKeyHeader, rand.Text())
	r.Header.Set(hmacverify.SignatureHeader, hmacverify.Sign(secret, body))
	// It has no proxy, and tries once. RoundTrip follows no redirects, and its errors
	// have no URL. They may quote a header.
	transport := http.Transport{DisableKeepAlives: true, MaxResponseHeaderBytes: 4 << 10}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 200)) // enough to see what it is
	return fmt.Sprintf("%d %q", resp.StatusCode, text), err
}

func read(file string) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(os.Stdin)
	}
	return os.ReadFile(file)
}
