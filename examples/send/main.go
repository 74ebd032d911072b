// Send tests a receiver without waiting for a chat. It signs files and posts
// them the way Guuru documents:
//
//	GUURU_SECRET=secr3t go run ./examples/send -url http://localhost:8000 testdata/*.json
//
// A file named - means standard input. Send prints the response to each file,
// and exits with 1 unless all of them are 2xx.
package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
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
	secret := os.Getenv("GUURU_SECRET")
	if _, err := hmacverify.New(secret); err != nil { // only checks the secret
		log.Fatalf("GUURU_SECRET: %v", err)
	}

	status := 0
	for _, file := range flag.Args() {
		response, err := send(*url, secret, *event, file)
		if err != nil {
			response, status = err.Error(), 1
		}
		fmt.Println(file, response)
	}
	os.Exit(status)
}

// client does not follow redirects, because Guuru might not. It uses no proxy.
var client = http.Client{
	Timeout:       30 * time.Second,
	Transport:     &http.Transport{},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// send posts file. It returns the response if its status is 2xx, or an error.
func send(url, secret, event, file string) (response string, err error) {
	body, err := read(file)
	if err != nil {
		return "", err
	}
	r, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set(hmacverify.EventHeader, event)
	r.Header.Set(hmacverify.IdempotencyKeyHeader, rand.Text())
	r.Header.Set(hmacverify.SignatureHeader, hmacverify.Sign(secret, body))
	resp, err := client.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 200)) // enough to see what it is
	if err != nil {
		return "", err
	}
	response = fmt.Sprintf("%d %q", resp.StatusCode, text)
	if resp.StatusCode/100 != 2 {
		return "", errors.New(response)
	}
	return response, nil
}

func read(file string) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(os.Stdin)
	}
	return os.ReadFile(file)
}
