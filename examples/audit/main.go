// Audit checks a running receiver, in any language and behind any proxy: does it
// accept what it must, and reject what it must?
//
//	GUURU_SECRET=secr3t go run ./examples/audit -url http://localhost:8000
//
// Audit only your own receiver: it gets valid deliveries, too. The exit status is
// 0 only if every check is ok.
package main

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"log"
	"net/http"
	neturl "net/url"
	"os"
	"strings"
	"time"

	"example.com/hmacverify"
)

func main() {
	url := flag.String("url", "http://localhost:8000", "post to this `URL`")
	flag.Parse()
	if flag.NArg() > 0 {
		log.Fatalf("unexpected argument %q", flag.Arg(0))
	}
	u, err := neturl.Parse(*url)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "http" && u.Scheme != "https" {
		log.Fatal("-url is not a URL like http://localhost:8000, without a password")
	}
	secret := os.Getenv("GUURU_SECRET")
	if _, err := hmacverify.New(secret); err != nil { // only checks the secret
		log.Fatalf("GUURU_SECRET: %v", err)
	}

	status, checks := 0, table(secret)
	for i, c := range checks {
		code, did := c.post(*url)
		verdict := "ok"
		if !c.passes(code) {
			verdict, status = "FAIL", 1
		}
		if _, err := fmt.Printf("%-4s  must %s %s: %s\n", verdict, c.must, c.what, did); err != nil {
			log.Fatal(err)
		}
		if i == 0 && status != 0 {
			log.Fatal("no delivery is accepted: check the URL, GUURU_SECRET, and the proxy in front")
		}
		if code == 0 { // did it end?
			if again, _ := checks[0].post(*url); !checks[0].passes(again) {
				log.Fatal("since this check, the receiver does not accept deliveries any more")
			}
		}
	}
	os.Exit(status)
}

type check struct {
	must, what, body  string
	contentType, sigs []string // none, one, or several headers
}

// passes reports whether a status is right: 0 means that there was no response.
// A redirect, a limit on requests, or a failure of the server rejects nothing.
func (c check) passes(code int) bool {
	if c.must == "accept" {
		return code/100 == 2
	}
	return code/100 == 4 && code != http.StatusTooManyRequests
}

const chat = `{"user":{"name":"João","email":"","locale":"en"},"question":"Audit %s",` +
	`"status":"rated","language":"en","transcriptURL":"https://chat.guuru.com/transcripts/%[1]s",` +
	`"rating":1,"category":"general","createdAt":1551456274349,"ratedAt":1551456341040}`

func table(secret string) []check {
	sign := func(body string) string { return hmacverify.Sign(secret, []byte(body)) }
	accept := func(what, body string) check {
		return check{"accept", what, body, []string{"application/json"}, []string{sign(body)}}
	}
	reject := func(what, body string, sigs ...string) check {
		return check{"reject", what, body, []string{"application/json"}, sigs}
	}
	// A signature that begins with 0 is one check, so the other bodies avoid it.
	fresh := func(zero bool, oldnew ...string) (body string) {
		for ok := false; !ok; ok = strings.HasPrefix(sign(body), "0") == zero {
			body = strings.NewReplacer(oldnew...).Replace(fmt.Sprintf(chat, rand.Text()))
		}
		return body
	}
	body := fresh(false)
	sig := sign(body)
	swap := func(from, to string) string { return strings.Replace(body, from, to, 1) }
	long := strings.Repeat("😀", (64<<10-len(body))/4) // a read can end within one
	another := func(digit string) string { return strings.Trim("01", digit)[:1] }
	return []check{
		accept("a delivery", body),
		accept("the same again, with another Idempotency-Key", body),
		accept("a signature that begins with 0", fresh(true)),
		accept("a signed body with spaces and escapes", fresh(false, `,"`, `, "`, "ã", `\u00e3`)),
		accept("a signed body of 64 KiB", fresh(false, "general", "general"+long)),
		reject("a body without a signature, as application/json", body),
		{"reject", "a body without a signature, as text/plain", body, []string{"text/plain"}, nil},
		{"reject", "forms without a signature", body, []string{"application/x-www-form-urlencoded"}, nil},
		{"reject", "a body without a signature or Content-Type", body, nil, nil},
		reject("an empty body without a signature", ""),
		reject("an empty signature", body, ""),
		reject("a signature with its first digit changed", body, another(sig[:1])+sig[1:]),
		reject("a signature with its last digit changed", body, sig[:63]+another(sig[63:])),
		reject("a signature made with an empty secret", body, hmacverify.Sign("", []byte(body))),
		reject("a signature that is too short", body, sig[:62]),
		reject("a signature that is too long", body, sig+"00"),
		reject("a signature that is not ASCII", body, sig[:62]+"é"),
		reject("two signatures, the wrong one first", body, sign(""), sig),
		reject("a changed body", swap(`"rating":1`, `"rating":5`), sig),
		reject("a body with a line break added at its end", body+"\n", sig),
		reject("a body with a space added between fields", swap(`,"`, `, "`), sig),
		reject("a body with a byte order mark added", "\ufeff"+body, sig),
		reject("invalid UTF-8 where U+FFFD was signed", swap("ã", "\xff"), sign(swap("ã", "\ufffd"))),
		reject("CRLF where LF was signed", swap("{", "{\r\n"), sign(swap("{", "{\n"))),
		accept("a delivery after all the others", body),
	}
}

// transport opens a connection for each delivery. Its errors may quote a header.
var transport = http.Transport{DisableKeepAlives: true, MaxResponseHeaderBytes: 4 << 10}

// post returns the status of the response, or 0, and what the receiver did.
func (c check) post(url string) (code int, did string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	r, _ := http.NewRequestWithContext(ctx, "POST", url, strings.NewReader(c.body))
	r.Header = http.Header{hmacverify.SignatureHeader: c.sigs, "Content-Type": c.contentType,
		hmacverify.EventHeader: {"chat-rated"}, hmacverify.IdempotencyKeyHeader: {rand.Text()}}
	resp, err := transport.RoundTrip(r) // no redirects, and no URL in errors
	if err != nil {
		return 0, "no response: " + err.Error()
	}
	resp.Body.Close()
	return resp.StatusCode, fmt.Sprint(resp.StatusCode, " ", http.StatusText(resp.StatusCode))
}
