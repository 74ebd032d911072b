//go:build go1.24

package hmacverify_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"example.com/hmacverify"
)

// deliver receives only requests with a valid signature.
func deliver(w http.ResponseWriter, r *http.Request) {
	switch event := r.Header.Get(hmacverify.EventHeader); event {
	case hmacverify.EventChatRated:
		p, err := hmacverify.PayloadFrom(r.Context())
		if err != nil { // unless it is ErrNoPayload, keep r.Body: it may not come again
			slog.Error("payload not decoded", "event", event, "err", err)
			http.Error(w, "payload not decoded", http.StatusInternalServerError)
			return
		}
		if p.Status != "rated" { // the event is not signed: it may be another one's body
			slog.Warn("ignored", "event", event, "status", p.Status)
			return
		}
		fmt.Println(event, p.User.Name, p.Rating)
	default:
		slog.Info("ignored", "event", fmt.Sprintf("%.100s", event))
	}
}

// Receive a delivery. For a whole program, see the README.
func ExampleReceiver_Handler() {
	rc, err := hmacverify.New("secr3t") // in a service, os.Getenv("GUURU_SECRET")
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/guuru", rc.Handler(http.HandlerFunc(deliver)))

	body := `{"user":{"name":"João"},"status":"rated","rating":1}`
	sig := "34e22c669b2907701d81f275b3800ce84645f3f982e235abede8a4e7a0fdb962"
	r := httptest.NewRequest("POST", "/guuru", strings.NewReader(body))
	r.Header.Set("X-Guuru-Event", "chat-rated")
	r.Header.Set("X-Guuru-Hmac-Sha256", sig)
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	fmt.Println(w.Code)
	// Output:
	// chat-rated João 1
	// 200
}

// A test of your handler. It sends one request signed with the right secret and
// one signed with another, which must not reach the handler.
func ExampleReceiver_Handler_test() {
	rc, err := hmacverify.New("test secret")
	if err != nil {
		log.Fatal(err)
	}
	handler := rc.Handler(http.HandlerFunc(deliver))
	body := []byte(`{"user":{"name":"Ada"},"status":"rated","rating":5}`)
	for _, secret := range []string{"test secret", "another secret"} {
		r := httptest.NewRequest("POST", "/guuru", bytes.NewReader(body))
		r.Header.Set(hmacverify.SignatureHeader, hmacverify.Sign(secret, body))
		r.Header.Set(hmacverify.EventHeader, hmacverify.EventChatRated)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		fmt.Println(w.Code)
	}
	// Output:
	// chat-rated Ada 5
	// 200
	// 400
}

// Rotate the secret without losing a delivery. Log each delivery that is signed
// with the old secret. When there are none any more, remove that secret.
func ExampleNew() {
	newSecret, oldSecret := "new secret", "old secret"
	rc, err := hmacverify.New(newSecret, oldSecret)
	if err != nil {
		log.Fatal(err)
	}
	handler := rc.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // from memory, so there is no error
		if hmacverify.Verify(newSecret, body, r.Header.Get(hmacverify.SignatureHeader)) != nil {
			fmt.Println("signed with the old secret")
		}
	}))
	for _, secret := range []string{oldSecret, newSecret, "another secret"} {
		r := httptest.NewRequest("POST", "/guuru", strings.NewReader("{}"))
		r.Header.Set(hmacverify.SignatureHeader, hmacverify.Sign(secret, []byte("{}")))
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		fmt.Println(w.Code)
	}
	// Output:
	// signed with the old secret
	// 200
	// 200
	// 400
}

// Keep bodies whose signature does not match, so that examples/verify can
// explain why. Anyone can send such a body, so keep one per signature, and at
// most five.
func ExampleReceiver_errorHandler() {
	dir, err := os.MkdirTemp("", "mismatches-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir) // not in a service
	kept := make(chan struct{}, 5)
	keep := func(r *http.Request) error {
		select {
		case kept <- struct{}{}:
		default:
			return errors.New("five bodies are kept already")
		}
		name := "mismatch-" + r.Header.Get(hmacverify.SignatureHeader) + ".json"
		file, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			<-kept
			return err
		}
		_, err = io.Copy(file, r.Body)
		return errors.Join(err, file.Close())
	}
	rc, err := hmacverify.New("secr3t")
	if err != nil {
		log.Fatal(err)
	}
	rc.ErrorHandler = func(w http.ResponseWriter, r *http.Request, err error) {
		if errors.Is(err, hmacverify.ErrSignatureMismatch) {
			slog.Info("keep body", "dir", dir, "err", keep(r)) // "file exists": kept already
		}
		hmacverify.DefaultErrorHandler(w, r, err)
	}
	handler := rc.Handler(http.HandlerFunc(deliver))

	sig := hmacverify.Sign("secr3t", []byte(`{"rating":5}`))
	r := httptest.NewRequest("POST", "/guuru", strings.NewReader(`{"rating": 5}`))
	r.Header.Set(hmacverify.SignatureHeader, sig)
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	body, err := os.ReadFile(filepath.Join(dir, "mismatch-"+sig+".json"))
	fmt.Println(w.Code, string(body), err)
	// Output:
	// 400 {"rating": 5} <nil>
}

// A cloud function receives the request as an event. The body may be in Base64,
// and header names may be in any case.
func ExampleReceiver_Verify() {
	type event struct {
		Headers         map[string]string `json:"headers"`
		Body            string            `json:"body"`
		IsBase64Encoded bool              `json:"isBase64Encoded"`
	}
	rc, err := hmacverify.New("secr3t")
	if err != nil {
		log.Fatal(err)
	}
	handle := func(e event) (*hmacverify.Payload, error) {
		body := []byte(e.Body)
		if e.IsBase64Encoded {
			decoded, err := base64.StdEncoding.DecodeString(e.Body)
			if err != nil {
				return nil, err
			}
			body = decoded
		}
		header := make(http.Header)
		for name, value := range e.Headers {
			header.Add(name, value) // in canonical case
		}
		// Names can differ only in case: several values, joined, are malformed.
		sig := strings.Join(header.Values(hmacverify.SignatureHeader), ", ")
		if err := rc.Verify(body, sig); err != nil {
			return nil, err
		}
		return hmacverify.ParsePayload(body)
	}

	p, err := handle(event{
		Headers: map[string]string{
			"x-guuru-event":       "chat-rated",
			"x-guuru-hmac-sha256": "5601c1c9089b4c4809a072471712737221cf09c0b89441aa5029ae9f94a56c51",
		},
		Body:            "eyJyYXRpbmciOjV9",
		IsBase64Encoded: true,
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(p.Rating)
	// Output: 5
}

// Detect duplicates. In a service, insert the key under a unique constraint, in
// the transaction that stores your result.
func ExampleDeliveryID() {
	stored := make(map[string]bool)
	for _, event := range []string{"chat-rated", "chat-rated", "chat-closed", "invented"} {
		sig := hmacverify.Sign("secr3t", []byte(`{"rating":5}`)) // the verified header
		id := hmacverify.DeliveryID(event, sig)
		fmt.Println(id, stored[id])
		stored[id] = true
	}
	// Output:
	// chat-rated-5601c1c9089b4c4809a072471712737221cf09c0b89441aa5029ae9f94a56c51 false
	// chat-rated-5601c1c9089b4c4809a072471712737221cf09c0b89441aa5029ae9f94a56c51 true
	// chat-closed-5601c1c9089b4c4809a072471712737221cf09c0b89441aa5029ae9f94a56c51 false
	// unknown-5601c1c9089b4c4809a072471712737221cf09c0b89441aa5029ae9f94a56c51 false
}

func newReceiver(tb testing.TB, secrets ...string) *hmacverify.Receiver {
	tb.Helper()
	rc, err := hmacverify.New(secrets...)
	if err != nil {
		tb.Fatal(err)
	}
	return rc
}

// newRequest returns a request as a server receives it.
func newRequest(method, body string, sigs ...string) *http.Request {
	r := httptest.NewRequest("POST", "/", strings.NewReader(body))
	r.Method = method // httptest panics for some
	r.Header["X-Guuru-Hmac-Sha256"] = sigs
	return r
}

func newSignedRequest(body string) *http.Request {
	return newRequest("POST", body, reference(secret, body))
}

// forged is well-formed, and the signature of no body in the tests.
var forged = strings.Repeat("0", 64)

// mustAccept fails the test unless rc passes r to the next handler. It returns
// the request that the next handler received.
func mustAccept(t *testing.T, rc *hmacverify.Receiver, r *http.Request) (accepted *http.Request) {
	t.Helper()
	w := httptest.NewRecorder()
	rc.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		accepted = r
	})).ServeHTTP(w, r)
	if accepted == nil {
		t.Fatalf("rejected with %d %q", w.Code, w.Body)
	}
	return accepted
}

// mustReject fails the test unless rc passes r to ErrorHandler once, and to no
// other handler. It replaces rc.ErrorHandler. It returns what that received.
func mustReject(t *testing.T, rc *hmacverify.Receiver, r *http.Request) (
	rejected *http.Request, err error) {
	t.Helper()
	calls := 0
	rc.ErrorHandler = func(_ http.ResponseWriter, r *http.Request, e error) {
		rejected, err, calls = r, e, calls+1
	}
	rc.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("the request reached the next handler")
	})).ServeHTTP(httptest.NewRecorder(), r)
	if calls != 1 {
		t.Fatalf("got %d calls of ErrorHandler, want 1", calls)
	}
	return rejected, err
}

func TestDocumentedRequests(t *testing.T) {
	for _, ex := range examples(t) {
		t.Run(ex.name, func(t *testing.T) {
			r := mustAccept(t, newReceiver(t, secret), newRequest("POST", ex.body, ex.sig))
			p, _ := hmacverify.PayloadFrom(r.Context())
			want := strings.Replace(ex.body, `"email":"",`, "", 1) // its zero field
			if got, err := json.Marshal(p); string(got) != want || err != nil {
				t.Errorf("got payload %s, %v\nwant %s, nil", got, err, want)
			}
			if body, err := io.ReadAll(r.Body); err != nil || string(body) != ex.body {
				t.Errorf("got body %q, %v\nwant %q, nil", body, err, ex.body)
			}
		})
	}
}

// Headers and errors are spelled as documented, and no error wraps another.
func TestNames(t *testing.T) {
	names := map[any]string{
		hmacverify.SignatureHeader:       "X-Guuru-Hmac-Sha256",
		hmacverify.EventHeader:           "X-Guuru-Event",
		hmacverify.IdempotencyKeyHeader:  "Idempotency-Key",
		hmacverify.ErrEmptySecret:        "hmacverify: empty secret",
		hmacverify.ErrMissingSignature:   "hmacverify: missing signature",
		hmacverify.ErrMalformedSignature: "hmacverify: malformed signature",
		hmacverify.ErrSignatureMismatch:  "hmacverify: signature mismatch",
		hmacverify.ErrMethodNotAllowed:   "hmacverify: method not allowed",
		hmacverify.ErrMalformedPayload:   "hmacverify: malformed payload",
		hmacverify.ErrNoPayload:          "hmacverify: no payload in context",
	}
	for got, want := range names {
		if fmt.Sprint(got) != want {
			t.Errorf("got %v, want %s", got, want)
		}
		for other := range names {
			err, _ := got.(error)
			target, _ := other.(error)
			if err != target && errors.Is(err, target) {
				t.Errorf("%v wraps %v", err, target)
			}
		}
	}
}

func TestNewRejectsUnusableSecrets(t *testing.T) {
	for _, tc := range []struct {
		secrets []string
		want    string
	}{
		{nil, "hmacverify: empty secret"},
		{[]string{""}, "hmacverify: empty secret (1 of 1)"},
		{[]string{secret, ""}, "hmacverify: empty secret (2 of 2)"},
		{[]string{secret, "\x00\x00"}, "hmacverify: empty secret (2 of 2)"},
		{[]string{secret + "\n", ""}, "hmacverify: empty secret (2 of 2)"},
		{[]string{secret + "\n"}, "hmacverify: secret 1 of 1 contains a line break"},
		{[]string{secret + "\r"}, "hmacverify: secret 1 of 1 contains a line break"},
		{[]string{"\n" + secret, secret}, "hmacverify: secret 1 of 2 contains a line break"},
		{[]string{"a", "b", "c\r\nc"}, "hmacverify: secret 3 of 3 contains a line break"},
	} {
		t.Run(fmt.Sprintf("%q", tc.secrets), func(t *testing.T) {
			rc, err := hmacverify.New(tc.secrets...)
			if rc != nil || fmt.Sprint(err) != tc.want ||
				errors.Is(err, hmacverify.ErrEmptySecret) != strings.Contains(tc.want, "empty") {
				t.Errorf("got %v, %#v; want nil, %s", rc, err, tc.want)
			}
		})
	}
}

// New copies its secrets, also for HMACs that are made later.
func TestAnySecretIsAccepted(t *testing.T) {
	secrets := []string{"new", "old", "older"}
	rc := newReceiver(t, secrets...)
	clear(secrets)
	for range 3 {
		for signedWith, want := range map[string]error{
			"new": nil, "old": nil, "older": nil, "newold": hmacverify.ErrSignatureMismatch,
		} {
			if err := rc.Verify(nil, reference(signedWith, "")); !errors.Is(err, want) {
				t.Errorf("signed with %q: got %v, want %v", signedWith, err, want)
			}
		}
		runtime.GC() // a sync.Pool is empty after two
		runtime.GC()
	}
}

// A programming mistake panics at once, and the text says what it is.
func TestMistakesPanic(t *testing.T) {
	none, rc := (*hmacverify.Receiver)(nil), newReceiver(t, secret)
	for _, tc := range []struct {
		want string
		call func()
	}{
		{"hmacverify: nil Receiver: check the error of New", func() { none.Handler(http.NotFoundHandler()) }},
		{"hmacverify: nil handler", func() { rc.Handler(nil) }},
		{"hmacverify: nil handler", func() { rc.Handler(http.HandlerFunc(nil)) }},
		{"hmacverify: DeliveryID(event, sig): sig is not 64 lowercase hex digits: it was not " +
			"verified before, or the arguments are swapped",
			func() { hmacverify.DeliveryID(forged, "chat-rated") }},
	} {
		if got := recovered(tc.call); got != tc.want {
			t.Errorf("got panic %v, want %s", got, tc.want)
		}
	}
}

// The server, not this package, recovers from a panic in a handler.
func TestHandlersPanicsGoOn(t *testing.T) {
	rc := newReceiver(t, secret)
	rc.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic("ErrorHandler") }
	handler := rc.Handler(http.HandlerFunc(
		func(http.ResponseWriter, *http.Request) { panic("next handler") }))
	for want, r := range map[string]*http.Request{
		"next handler": newSignedRequest("{}"), "ErrorHandler": newRequest("POST", "{}"),
	} {
		if got := recovered(func() { handler.ServeHTTP(httptest.NewRecorder(), r) }); got != want {
			t.Errorf("got panic %v, want %s", got, want)
		}
	}
}

func TestReceiverShowsNoSecret(t *testing.T) {
	const secret = "do not show this"
	rc := newReceiver(t, secret, secret)
	shown := fmt.Sprintf("%v %+v %#v %v %+v %#v", rc, rc, rc, *rc, *rc, *rc)
	for _, leak := range []string{secret, fmt.Sprintf("%x", secret), fmt.Sprint([]byte(secret))} {
		if strings.Contains(shown, leak) {
			t.Errorf("the secret is shown in %s", shown)
		}
	}
}

func TestHandlerRejectsSignatures(t *testing.T) {
	const body = `{"rating":5}`
	sig := reference(secret, body)
	missing, malformed := hmacverify.ErrMissingSignature, hmacverify.ErrMalformedSignature
	for _, tc := range []struct {
		name   string
		sigs   []string
		want   error
		detail string // after the text of want
	}{
		{"none", nil, missing, ""},
		{"empty", []string{""}, missing, ""},
		{"leading space", []string{" " + sig}, malformed, ": length 65, want 64"},
		{"trailing space", []string{sig + " "}, malformed, ": length 65, want 64"},
		{"only spaces", []string{"  "}, malformed, ": length 2, want 64"},
		{"quotes", []string{`"` + sig + `"`}, malformed, ": length 66, want 64"},
		{"trailing comma", []string{sig + ","}, malformed, ": length 65, want 64"},
		{"uppercase", []string{strings.ToUpper(sig)}, malformed, ": not lowercase hex"},
		{"two equal", []string{sig, sig}, malformed, ": 2 headers, want 1"},
		{"valid first", []string{sig, forged, ""}, malformed, ": 3 headers, want 1"},
		{"valid last", []string{"", sig}, malformed, ": 2 headers, want 1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRequest("POST", body, tc.sigs...)
			r.URL.RawQuery = "signature=" + sig + "&hmac=" + sig + "&X-Guuru-Hmac-Sha256=" + sig
			for _, name := range []string{"Authorization", "X-Guuru-Signature", "Idempotency-Key",
				"X-Hub-Signature-256", "X-Forwarded-Guuru-Hmac-Sha256"} {
				r.Header.Set(name, sig)
			}
			_, err := mustReject(t, newReceiver(t, secret), r)
			if !errors.Is(err, tc.want) || err.Error() != tc.want.Error()+tc.detail {
				t.Errorf("got %v, want %v%s", err, tc.want, tc.detail)
			}
		})
	}
}

// The method is checked first, and the error has its first 20 characters.
func TestOnlyPostIsAllowed(t *testing.T) {
	for _, method := range []string{
		"", "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "PRI", "PUT", "QUERY", "TRACE",
		"post", "Post", "POST ", " POST", "POSTS", "POS", "POST\x00", "XPOST",
		strings.Repeat("X", 1000),
	} {
		want := "hmacverify: method not allowed: " + method[:min(20, len(method))]
		for _, sigs := range [][]string{nil, {reference(secret, "{}")}, {forged, forged}} {
			r := newRequest(method, "{}", sigs...)
			r.Header.Set("X-Http-Method-Override", "POST")
			_, err := mustReject(t, newReceiver(t, secret), r)
			if !errors.Is(err, hmacverify.ErrMethodNotAllowed) || err.Error() != want {
				t.Errorf("%q, signatures %q: got %v, want %s", method, sigs, err, want)
			}
		}
	}
}

// The zero Receiver accepts nothing, and says so before anything else.
func TestZeroReceiver(t *testing.T) {
	for _, r := range []*http.Request{
		newRequest("POST", "{}", reference("", "{}")), newRequest("POST", "{}"), newRequest("GET", ""),
	} {
		if _, err := mustReject(t, new(hmacverify.Receiver), r); err != hmacverify.ErrEmptySecret {
			t.Errorf("%s: got %v, want %v", r.Method, err, hmacverify.ErrEmptySecret)
		}
	}
	for _, rc := range []*hmacverify.Receiver{nil, {}} {
		if err := rc.Verify(nil, reference("", "")); err != hmacverify.ErrEmptySecret {
			t.Errorf("Verify of %v: got %v, want %v", rc, err, hmacverify.ErrEmptySecret)
		}
	}
}

// A Receiver inside another one verifies again. If it rejects the request, the
// payload of the outer one is gone.
func TestReceiverInsideAnother(t *testing.T) {
	outer, inner := newReceiver(t, secret), newReceiver(t, "another secret", secret)
	r := mustAccept(t, inner, mustAccept(t, outer, newSignedRequest(`{"rating":5}`)))
	if p, err := hmacverify.PayloadFrom(r.Context()); p == nil || p.Rating != 5 || err != nil {
		t.Errorf("got payload %+v, %v; want a rating of 5", p, err)
	}
	for _, inner := range []*hmacverify.Receiver{newReceiver(t, "another secret"), {}} {
		r, _ := mustReject(t, inner, mustAccept(t, outer, newSignedRequest("{}")))
		if p, err := hmacverify.PayloadFrom(r.Context()); p != nil || err != hmacverify.ErrNoPayload {
			t.Errorf("got payload %v, %v; want nil, %v", p, err, hmacverify.ErrNoPayload)
		}
	}
}

// A signature is valid for the very bytes that were signed, not for others that
// mean the same.
func TestEveryByteOfTheBodyCounts(t *testing.T) {
	const body = `{"user":"João"}`
	bodies := []string{
		body, `{"user": "João"}`, `{"User":"João"}`, `{"user":"João","user":"João"}`, `{"user":"Jo\u00e3o"}`,
		"{\"user\":\"Joa\u0303o\"}", "{\"user\":\"Jo\xe3o\"}", "{\"user\":\"Jo\ufffdo\"}",
		strconv.Quote(body), base64.StdEncoding.EncodeToString([]byte(body)),
	}
	for _, affix := range []string{"\n", "\r\n", "\r", " ", "\t", "\x00", "\x1a", "\ufeff", "\u00a0", `"`} {
		bodies = append(bodies, affix+body, body+affix)
	}
	rc := newReceiver(t, secret)
	mustAccept(t, rc, newSignedRequest(body)) // its signature must not stick
	for _, original := range bodies {
		sig := reference(secret, original)
		if got := hmacverify.Sign(secret, []byte(original)); got != sig {
			t.Errorf("Sign(%q): got %s, want %s", original, got, sig)
		}
		for _, sent := range bodies {
			if sent == original {
				continue
			}
			_, err := mustReject(t, rc, newRequest("POST", sent, sig))
			if !errors.Is(err, hmacverify.ErrSignatureMismatch) {
				t.Errorf("%q with the signature of %q: got %v", sent, original, err)
			}
			for _, v := range verifiers {
				if v.verify(secret, sent, sig) != hmacverify.ErrSignatureMismatch {
					t.Errorf("%s accepts %q with the signature of %q", v.name, sent, original)
				}
			}
		}
	}
}

// What is rejected for its method or header is rejected before the body is
// read. ErrorHandler may read the body, up to MaxBodyBytes.
func TestUnreadBodyIsLimited(t *testing.T) {
	const limit = 64
	long := strings.Repeat("x", limit+1)
	sig := reference(secret, long)
	rc := newReceiver(t, secret)
	for _, tc := range []struct {
		name string
		rc   *hmacverify.Receiver
		r    *http.Request
	}{
		{"no secret", new(hmacverify.Receiver), newRequest("POST", long, sig)},
		{"GET", rc, newRequest("GET", long, sig)},
		{"unsigned", rc, newRequest("POST", long)},
		{"malformed", rc, newRequest("POST", long, "sha256="+sig)},
		{"doubled", rc, newRequest("POST", long, sig, sig)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			source := strings.NewReader(long)
			tc.r.Body = struct { // Close would panic
				io.Reader
				io.Closer
			}{source, nil}
			tc.rc.MaxBodyBytes = limit
			rejected, _ := mustReject(t, tc.rc, tc.r)
			if source.Len() != len(long) {
				t.Errorf("got %d bytes read, want 0", len(long)-source.Len())
			}
			body, err := io.ReadAll(rejected.Body)
			var tooLarge *http.MaxBytesError
			if string(body) != long[:limit] || !errors.As(err, &tooLarge) || tooLarge.Limit != limit {
				t.Errorf("got body %q, %v; want %d bytes and an error with the limit", body, err, limit)
			}
		})
	}
}

// Once the body is read, the error says what is wrong with it, and ErrorHandler
// gets what was read, without a payload.
func TestRejectedBodies(t *testing.T) {
	const limit = 64
	long := strings.Repeat("x", limit+1)
	smaller := newSignedRequest(long)
	smaller.Body = http.MaxBytesReader(nil, smaller.Body, 20) // by middleware in front
	consumed := newRequest("POST", "", reference(secret, "{}"))
	consumed.ContentLength = 2
	noBody := newSignedRequest("")
	noBody.Body = nil // it did not come from a server
	unknown := newRequest("POST", "{}", forged)
	unknown.ContentLength = -1
	mismatch, malformed := hmacverify.ErrSignatureMismatch, hmacverify.ErrMalformedPayload
	for _, tc := range []struct {
		name string
		r    *http.Request
		want error
		text string
		kept string
	}{
		{"too large", newSignedRequest(long), &http.MaxBytesError{Limit: limit},
			"hmacverify: body over limit of 64 bytes: http: request body too large", long[:limit]},
		{"over a smaller limit", smaller, &http.MaxBytesError{Limit: 20},
			"hmacverify: body over limit of 20 bytes: http: request body too large", long[:20]},
		{"too large and forged", newRequest("POST", long, forged), &http.MaxBytesError{Limit: limit},
			"hmacverify: body over limit of 64 bytes: http: request body too large", long[:limit]},
		{"forged", newRequest("POST", "{}", forged), mismatch,
			"hmacverify: signature mismatch: read 2 bytes, Content-Length 2", "{}"},
		{"forged and not JSON", newRequest("POST", "}", forged), mismatch,
			"hmacverify: signature mismatch: read 1 bytes, Content-Length 1", "}"},
		{"consumed in front", consumed, mismatch,
			"hmacverify: signature mismatch: read 0 bytes, Content-Length 2", ""},
		{"unknown length", unknown, mismatch,
			"hmacverify: signature mismatch: read 2 bytes, Content-Length -1", "{}"},
		{"not JSON", newSignedRequest("{}}"), malformed,
			"hmacverify: malformed payload: invalid character '}' after top-level value", "{}}"},
		{"nil", noBody, malformed,
			"hmacverify: malformed payload: unexpected end of JSON input", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			rc := newReceiver(t, secret)
			rc.MaxBodyBytes = limit
			rejected, err := mustReject(t, rc, tc.r)
			if err.Error() != tc.text || !wraps(err, tc.want) {
				t.Errorf("got %v, want %s, which wraps %#v", err, tc.text, tc.want)
			}
			if body, err := io.ReadAll(rejected.Body); string(body) != tc.kept || err != nil {
				t.Errorf("got body %q, %v; want %q, nil", body, err, tc.kept)
			}
			p, err := hmacverify.PayloadFrom(rejected.Context())
			if p != nil || err != hmacverify.ErrNoPayload {
				t.Errorf("got payload %v, %v; want nil, %v", p, err, hmacverify.ErrNoPayload)
			}
		})
	}
}

// wraps reports whether err wraps want, or a *http.MaxBytesError equal to it.
func wraps(err, want error) bool {
	var tooLarge *http.MaxBytesError
	return errors.Is(err, want) || errors.As(err, &tooLarge) && reflect.DeepEqual(tooLarge, want)
}

// Any error of reading rejects a request, even if what arrived is signed.
func TestReadErrors(t *testing.T) {
	for _, cause := range []error{
		io.ErrUnexpectedEOF, http.ErrBodyReadAfterClose, os.ErrDeadlineExceeded, context.Canceled,
		context.DeadlineExceeded, io.ErrClosedPipe, io.ErrNoProgress,
		fmt.Errorf("no code knows this one: %w", io.EOF),
	} {
		for _, arrived := range []string{"", "{}"} {
			r := newSignedRequest(arrived)
			r.Body = io.NopCloser(io.MultiReader(strings.NewReader(arrived), iotest.ErrReader(cause)))
			rejected, err := mustReject(t, newReceiver(t, secret), r)
			if !errors.Is(err, cause) || err.Error() != "hmacverify: read body: "+cause.Error() {
				t.Errorf("got %v, want %v, wrapped", err, cause)
			}
			if body, err := io.ReadAll(rejected.Body); string(body) != arrived || err != nil {
				t.Errorf("%v: got body %q, %v; want %q, nil", cause, body, err, arrived)
			}
		}
	}
}

// Handlers in front, such as a logger, find their request as it was, apart from
// what was read from its Body. The Receiver neither responds nor logs, and passes
// on the server's ResponseWriter, which may have more methods.
func TestHandlerHasNoSideEffects(t *testing.T) {
	for name, r := range map[string]*http.Request{
		"accepted":  newSignedRequest("{}"),
		"GET":       newRequest("GET", "{}", reference(secret, "{}")),
		"unsigned":  newRequest("POST", "{}"),
		"mismatch":  newRequest("POST", "{}", forged),
		"too large": newSignedRequest(strings.Repeat("x", 100)),
		"not JSON":  newSignedRequest("x"),
	} {
		t.Run(name, func(t *testing.T) {
			r.ContentLength, r.TransferEncoding = -1, []string{"chunked"}
			r.Header.Set("Content-Encoding", "gzip")
			before, header := *r, maps.Clone(r.Header)
			before.TransferEncoding = []string{"chunked"}
			logged, server := recordLog(), httptest.NewRecorder()
			var got http.ResponseWriter
			rc := newReceiver(t, secret)
			rc.MaxBodyBytes = 64
			rc.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { got = w }
			rc.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				got = w
			})).ServeHTTP(server, r)
			if !reflect.DeepEqual(*r, before) || !reflect.DeepEqual(r.Header, header) {
				t.Errorf("got %+v\nwant %+v", *r, before)
			}
			if got != server || !reflect.DeepEqual(server, httptest.NewRecorder()) {
				t.Errorf("got %T %+v, want the server's, unused", got, server)
			}
			if len(logged.records) > 0 {
				t.Errorf("got log %v, want none", logged.records)
			}
		})
	}
}

// Requests share the fields, so a Receiver never sets them.
func TestReceiverKeepsItsFields(t *testing.T) {
	recordLog()
	rc := newReceiver(t, secret)
	for _, r := range []*http.Request{newSignedRequest("{}"), newRequest("POST", "{}", forged)} {
		rc.Handler(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), r)
		if rc.MaxBodyBytes != 0 || rc.ErrorHandler != nil {
			t.Errorf("got %+v, want zero fields", rc)
		}
	}
}

// What is not signed decides nothing, nor does a sender that has left.
func TestOnlyTheSignatureCounts(t *testing.T) {
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	r := newSignedRequest("{}").WithContext(canceled)
	r.ContentLength = 0
	for _, name := range []string{"Content-Type", "Content-Encoding", "Content-Length", "Expect",
		"X-Guuru-Event", "X-Guuru-Signature", "X-Http-Method-Override"} {
		r.Header.Set(name, "gzip")
	}
	mustAccept(t, newReceiver(t, secret), r)
}

func TestMaxBodyBytes(t *testing.T) {
	for _, tc := range []struct{ limit, longest int }{
		{10, 10}, {2 << 20, 2 << 20}, {0, hmacverify.DefaultMaxBodyBytes}, {-1, 1 << 20},
	} {
		t.Run(fmt.Sprint(tc.limit), func(t *testing.T) {
			rc := newReceiver(t, secret)
			rc.MaxBodyBytes = int64(tc.limit)
			body := `"` + strings.Repeat("x", tc.longest-2) + `"`
			got, _ := io.ReadAll(mustAccept(t, rc, newSignedRequest(body)).Body)
			if string(got) != body {
				t.Errorf("got %d bytes, want %d", len(got), len(body))
			}
			for _, announced := range []int{-1, 0, 1, tc.longest, tc.longest + 1} {
				r := newSignedRequest(body + " ")
				r.ContentLength = int64(announced)
				mustReject(t, rc, r)
			}
			if err := rc.Verify([]byte(body+" "), reference(secret, body+" ")); err != nil {
				t.Errorf("Verify, which has no limit: got %v, want nil", err)
			}
		})
	}
	rc := newReceiver(t, secret)
	rc.MaxBodyBytes = 1<<63 - 1 // adding 1 would overflow
	mustAccept(t, rc, newSignedRequest("{}"))
}

// A large Content-Length with a body of one byte does not cost much memory.
func TestMemoryFollowsArrivedBytes(t *testing.T) {
	rc := newReceiver(t, secret)
	rc.MaxBodyBytes = 1 << 40
	r := newRequest("POST", "{", reference(secret, ""))
	r.ContentLength = 1 << 30
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	mustReject(t, rc, r)
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 64<<10 {
		t.Errorf("got %d bytes allocated for one byte of body, want at most 64 KiB", got)
	}
}

// A recorder is a slog.Handler that keeps what it is given.
type recorder struct{ records []record }

type record struct {
	ctx     context.Context
	level   slog.Level
	message string
	attrs   map[string]any
}

// recordLog sets slog.Default to a recorder. The first one cannot be put back.
func recordLog() *recorder {
	rec := new(recorder)
	slog.SetDefault(slog.New(rec))
	return rec
}

func (rec *recorder) Handle(ctx context.Context, r slog.Record) error {
	attrs := make(map[string]any)
	r.Attrs(func(a slog.Attr) bool { attrs[a.Key] = a.Value.Any(); return true })
	rec.records = append(rec.records, record{ctx, r.Level, r.Message, attrs})
	return nil
}

func (rec *recorder) Enabled(context.Context, slog.Level) bool { return true }
func (rec *recorder) WithAttrs([]slog.Attr) slog.Handler       { panic("unexpected") }
func (rec *recorder) WithGroup(string) slog.Handler            { panic("unexpected") }

// DefaultErrorHandler responds, and logs one record with the request's context.
// Nothing in it but "err" comes from the client. It replaces headers that other
// middleware has set for another body, but not a Content-Encoding: middleware
// that sets it up front compresses the text.
func TestDefaultErrorHandler(t *testing.T) {
	const (
		noMatch    = "Invalid request, non-matching HMAC-SHA256 received"
		unreadable = "Invalid request, unreadable body"
	)
	r := httptest.NewRequest("GET", "/", nil)
	for _, name := range []string{"X-Forwarded-For", "X-Real-Ip", "Forwarded", "User-Agent"} {
		r.Header.Set(name, "203.0.113.1")
	}
	ctx, cancel := context.WithCancel(context.WithValue(r.Context(), contextKey{}, "kept"))
	cancel() // the sender has left
	r = r.WithContext(ctx)
	for _, tc := range []struct {
		err    error
		status int
		text   string
	}{
		{hmacverify.ErrEmptySecret, 500, "Internal Server Error"},
		{hmacverify.ErrMethodNotAllowed, 405, "Invalid request, method is not POST"},
		{hmacverify.ErrMissingSignature, 400, noMatch},
		{hmacverify.ErrMalformedSignature, 400, noMatch},
		{hmacverify.ErrSignatureMismatch, 400, noMatch},
		{&http.MaxBytesError{Limit: 1}, 413, "Invalid request, body is too large"},
		{io.ErrUnexpectedEOF, 400, unreadable},
		{os.ErrDeadlineExceeded, 400, unreadable},
		{hmacverify.ErrMalformedPayload, 400, "Invalid request, body is not JSON"},
		{hmacverify.ErrNoPayload, 400, unreadable},
		{errors.New("unknown"), 400, unreadable},
	} {
		t.Run(tc.err.Error(), func(t *testing.T) {
			logged, w := recordLog(), httptest.NewRecorder()
			err := fmt.Errorf("more: %w", fmt.Errorf("detail: %w", tc.err))
			for _, name := range []string{"Allow", "Content-Encoding", "Content-Length", "Content-Type",
				"X-Content-Type-Options"} {
				w.Header().Set(name, "7")
			}
			hmacverify.DefaultErrorHandler(w, r, err)
			header := http.Header{"Allow": {"7"}, "Content-Encoding": {"7"},
				"Content-Type": {"text/plain; charset=utf-8"}, "X-Content-Type-Options": {"nosniff"}}
			if tc.status == 405 {
				header.Set("Allow", "POST")
			}
			got := w.Result().Header // as it was sent
			if w.Code != tc.status || w.Body.String() != tc.text || !reflect.DeepEqual(got, header) {
				t.Errorf("got %d %q %v\nwant %d %q %v", w.Code, w.Body, got, tc.status, tc.text, header)
			}
			want := []record{{r.Context(), slog.LevelWarn, "rejected",
				map[string]any{"err": err, "from": "192.0.2.1:1234"}}}
			if !reflect.DeepEqual(logged.records, want) {
				t.Errorf("got log %v\nwant %v", logged.records, want)
			}
		})
	}
}

// "from" has at most 100 characters, since middleware may copy a header there.
func TestLoggedAddressIsCut(t *testing.T) {
	for _, n := range []int{0, 1, 100, 101, 900_000} {
		logged, r := recordLog(), newRequest("POST", "{}")
		r.RemoteAddr = strings.Repeat("é", n)
		newReceiver(t, secret).Handler(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), r)
		if want := strings.Repeat("é", min(n, 100)); logged.records[0].attrs["from"] != want {
			t.Errorf("got %v, want %s", logged.records[0].attrs, want)
		}
	}
}

type contextKey struct{}

func TestHandlerPassesTheRequestOn(t *testing.T) {
	const body = " {\"status\":\"rated\"}\n"
	for _, length := range []int64{-1, 0, 1} { // as after decompressing middleware
		r := newSignedRequest(body)
		r.ContentLength, r.TransferEncoding = length, []string{"chunked"}
		ctx, cancel := context.WithCancel(context.WithValue(r.Context(), contextKey{}, "kept"))
		got := mustAccept(t, newReceiver(t, secret), r.WithContext(ctx))
		text, err := io.ReadAll(got.Body)
		again, _ := io.ReadAll(got.Body)
		if string(text) != body || len(again) > 0 || err != nil || got.Body.Close() != nil {
			t.Errorf("got body %q, %v, then %q; want %q, nil, and nothing", text, err, again, body)
		}
		if n := reflect.TypeOf(got.Body).NumMethod(); n > 3 { // Read, Close, and WriteTo
			t.Errorf("got a body with %d methods", n)
		}
		cancel()
		if got.Context().Value(contextKey{}) != "kept" || got.Context().Err() == nil {
			t.Errorf("got context %v, want one from the original", got.Context())
		}
		want := r.WithContext(got.Context())
		want.Body, want.ContentLength, want.TransferEncoding = got.Body, int64(len(body)), nil
		if got.Header.Set("Shared", "yes"); !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v\nwant %+v", got, want)
		}
	}
}

// Concurrent deliveries do not get each other's payload, body, or HMAC, even if
// a handler keeps its request, as one does that works in the background.
func TestConcurrentDeliveries(t *testing.T) {
	const senders, each = 64, 50
	secrets := []string{"new secret", "old secret"}
	rc := newReceiver(t, secrets...)
	kept := make(chan *http.Request, 4*senders*each)
	rc.ErrorHandler = func(_ http.ResponseWriter, r *http.Request, _ error) { kept <- r }
	handler := rc.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kept <- r
		p, _ := hmacverify.PayloadFrom(r.Context())
		io.WriteString(w, p.ID)
	}))
	var wg sync.WaitGroup
	for g := range senders {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range each {
				id := fmt.Sprintf("%d-%d", g, i)
				body := fmt.Sprintf(`{"id":%q}`, id)
				for sig, want := range map[string]string{reference(secrets[(g+i)%2], body): id, forged: ""} {
					w, r := httptest.NewRecorder(), newRequest("POST", body, sig)
					r.Header.Set("Id", id)
					if handler.ServeHTTP(w, r); w.Body.String() != want {
						t.Errorf("%s: got %d %q, want %q", id, w.Code, w.Body, want)
					}
				}
			}
		}()
	}
	wg.Wait()
	close(kept)
	if len(kept) != 2*senders*each {
		t.Errorf("got %d requests, want %d", len(kept), 2*senders*each)
	}
	for r := range kept {
		want := fmt.Sprintf(`{"id":%q}`, r.Header.Get("Id"))
		if body, err := io.ReadAll(r.Body); string(body) != want || err != nil {
			t.Errorf("got body %s, %v; want %s, nil", body, err, want)
		}
		if p, _ := hmacverify.PayloadFrom(r.Context()); p != nil && p.ID != r.Header.Get("Id") {
			t.Errorf("got payload %+v, want that of %s", p, want)
		}
	}
}

// exchange sends a raw request to a Receiver with a limit of 1,000 bytes.
func exchange(t *testing.T, request string) (resp *http.Response, text string) {
	t.Helper()
	rc := newReceiver(t, secret)
	rc.MaxBodyBytes = 1000
	server := httptest.NewServer(rc.Handler(http.HandlerFunc(
		func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "Success!") })))
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "POST / HTTP/1.1\r\nHost: example.com\r\n"+request)
	conn.(*net.TCPConn).CloseWrite() // the client is done and still reads
	resp, err = http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("no response: %v", err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// Raw requests whose outcome depends on this package, not only on net/http.
func TestRawRequests(t *testing.T) {
	const (
		body       = `{"rating":5}`
		chunks     = "Transfer-Encoding: chunked\r\n\r\n2\r\n{\"\r\na\r\nrating\":5}\r\n"
		last       = "0\r\n"
		noMatch    = "Invalid request, non-matching HMAC-SHA256 received"
		unreadable = "Invalid request, unreadable body"
	)
	sig := "X-Guuru-Hmac-Sha256: " + reference(secret, body) + "\r\n"
	for _, tc := range []struct {
		name, request string // without its first two lines
		want          string
	}{
		{"chunks", sig + chunks + last + "\r\n", "Success!"},
		{"unsigned, never asked for", "Expect: 100-continue\r\nContent-Length: 12\r\n\r\n", noMatch},
		{"signature in a trailer", "Trailer: X-Guuru-Hmac-Sha256\r\n" + chunks + last + sig + "\r\n", noMatch},
		{"truncated after what is signed", sig + "Content-Length: 13\r\n\r\n" + body, unreadable},
		{"truncated before the last chunk", sig + chunks, unreadable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if resp, text := exchange(t, tc.request); text != tc.want {
				t.Errorf("got %d %q, want %q", resp.StatusCode, text, tc.want)
			}
		})
	}
}

// The response says that the connection is closed: the rest is not read.
func TestTooLargeClosesConnection(t *testing.T) {
	body := strings.Repeat("x", 1001)
	resp, text := exchange(t, "X-Guuru-Hmac-Sha256: "+reference(secret, body)+
		"\r\nContent-Length: 1001\r\n\r\n"+body)
	if resp.StatusCode != 413 || !resp.Close {
		t.Errorf("got %d %q, closed: %t; want 413 and true", resp.StatusCode, text, resp.Close)
	}
}

func TestParsePayloadAcceptsJSON(t *testing.T) {
	for body, want := range map[string]hmacverify.Payload{
		`{}`:                     {},
		`null`:                   {},
		` {"status" : "rated"} `: {Status: "rated"},
		`{"question":" q "}`:     {Question: " q "},
		`{"user":{"isLead":true,"isUser":true,"age":7},"new":[{}],"status":null}`: {
			User: hmacverify.User{IsLead: true, IsUser: true}},
		`{"RATING":2,"rating":1,"id":"a","id":"b"}`: {Rating: 1, ID: "b"},
		"{\"status\":\"\xff\"}":                     {Status: "\ufffd"},
	} {
		if p, err := hmacverify.ParsePayload([]byte(body)); p == nil || *p != want || err != nil {
			t.Errorf("%s: got %+v, %v; want %+v, nil", body, p, err, want)
		}
	}
}

// The other fields are set, and the error is not one of malformed JSON.
func TestParsePayloadOfUnexpectedType(t *testing.T) {
	for body, want := range map[string]hmacverify.Payload{
		`{"rating":"good","status":"rated"}`:                 {Status: "rated"},
		`{"user":"joao","ratedAt":"today","language":"en"}`:  {Language: "en"},
		`{"user":{"name":7,"locale":"en"},"rating":1}`:       {User: hmacverify.User{Locale: "en"}, Rating: 1},
		`{"createdAt":1.5e12,"rating":4.0,"status":"rated"}`: {Status: "rated"},
		`{"createdAt":1.5e400,"rating":1}`:                   {Rating: 1},
		`{"rating":99999999999999999999,"closedAt":1}`:       {ClosedAt: 1},
		`[]`:      {},
		`"rated"`: {},
	} {
		p, err := hmacverify.ParsePayload([]byte(body))
		if p == nil || *p != want {
			t.Errorf("%s: got %+v, want %+v", body, p, want)
		}
		var typeErr *json.UnmarshalTypeError
		if !errors.As(err, &typeErr) || errors.Is(err, hmacverify.ErrMalformedPayload) ||
			!strings.HasPrefix(err.Error(), "hmacverify: unexpected payload structure: json: ") {
			t.Errorf("%s: got %v, want only a *json.UnmarshalTypeError", body, err)
		}
	}
}

func TestParsePayloadRejectsMalformedJSON(t *testing.T) {
	for _, body := range []string{
		"", " \n", "{}\x00", "{", "{} {}", "\ufeff{}", "status=rated",
		`{"rating":"of another type","status":}`,
		strings.Repeat("[", 10_001) + strings.Repeat("]", 10_001), // too deep
	} {
		p, err := hmacverify.ParsePayload([]byte(body))
		var syntaxErr *json.SyntaxError
		if p != nil || !errors.Is(err, hmacverify.ErrMalformedPayload) || !errors.As(err, &syntaxErr) {
			t.Errorf("%.50s: got %v, %v; want nil and both errors", body, p, err)
		}
	}
}

// PayloadFrom returns what ParsePayload returned, and the same pointer each
// time. The Handler passes on JSON of any structure.
func TestPayloadFrom(t *testing.T) {
	for _, body := range []string{`{"rating":5}`, `{"rating":"good","status":"rated"}`, `[]`, `null`} {
		want, wantErr := hmacverify.ParsePayload([]byte(body))
		r := mustAccept(t, newReceiver(t, secret), newSignedRequest(body))
		p, err := hmacverify.PayloadFrom(r.Context())
		if !reflect.DeepEqual(p, want) || !reflect.DeepEqual(err, wantErr) {
			t.Errorf("%s: got %+v, %v; want %+v, %v", body, p, err, want, wantErr)
		}
		if again, againErr := hmacverify.PayloadFrom(r.Context()); again != p || againErr != err {
			t.Errorf("%s: got another pointer or error the second time", body)
		}
	}
	p, err := hmacverify.PayloadFrom(context.Background())
	if p != nil || err != hmacverify.ErrNoPayload {
		t.Errorf("without a Receiver: got %v, %v; want nil, %v", p, err, hmacverify.ErrNoPayload)
	}
}

func TestPayloadJSON(t *testing.T) {
	for want, payload := range map[string]hmacverify.Payload{
		`{}`:                       {},
		`{"user":{"isLead":true}}`: {User: hmacverify.User{IsLead: true}},
		`{"user":{"isUser":true}}`: {User: hmacverify.User{IsUser: true}},
		`{"id":"i","user":{"name":"n","email":"e","locale":"l","isLead":true,"isUser":true},"question":"q","status":"s","language":"l","transcriptURL":"t","rating":-1,"category":"c","createdAt":1,"acceptedAt":2,"closedAt":3,"ratedAt":4}`: {
			ID: "i", User: hmacverify.User{Name: "n", Email: "e", Locale: "l", IsLead: true, IsUser: true},
			Question: "q", Status: "s", Language: "l", TranscriptURL: "t", Rating: -1, Category: "c",
			CreatedAt: 1, AcceptedAt: 2, ClosedAt: 3, RatedAt: 4,
		},
	} {
		if text, err := json.Marshal(payload); string(text) != want || err != nil {
			t.Errorf("%+v: got %s, %v\nwant %s, nil", payload, text, err, want)
		}
		if got, err := hmacverify.ParsePayload([]byte(want)); *got != payload || err != nil {
			t.Errorf("%s: got %+v, %v\nwant %+v, nil", want, got, err, payload)
		}
	}
}

func TestMillisTimeIsUTC(t *testing.T) {
	for millis, want := range map[hmacverify.Millis]string{
		1551456587480: "2019-03-01T16:09:47.48Z",
		1:             "1970-01-01T00:00:00.001Z",
		-1:            "1969-12-31T23:59:59.999Z",
		0:             "0001-01-01T00:00:00Z",
	} {
		got := millis.Time()
		if got.Location() != time.UTC || got.Format(time.RFC3339Nano) != want ||
			got.IsZero() != (millis == 0) {
			t.Errorf("%d: got %v, IsZero %t; want %s in UTC", millis, got, got.IsZero(), want)
		}
	}
}

func TestDeliveryID(t *testing.T) {
	const sig = "7480a83edb7109f9f0021f6150383879f97e926654b91ac3e2aa591dd8fad851"
	for event, want := range map[string]string{
		hmacverify.EventChatAssigned:    "chat-assigned",
		hmacverify.EventChatOpened:      "chat-opened",
		hmacverify.EventChatClosed:      "chat-closed",
		hmacverify.EventChatReopened:    "chat-reopened",
		hmacverify.EventChatTransferred: "chat-transferred",
		hmacverify.EventChatRated:       "chat-rated",
		hmacverify.EventMessageCreated:  "message-created",

		"": "unknown", "unknown": "unknown", "chat-invented": "unknown", "message-deleted": "unknown",
		"chatRated": "unknown", "Chat-Rated": "unknown", "chat-rated ": "unknown",
		"chat-rated\x00": "unknown", "chat-rated,x": "unknown", "../chat-rated": "unknown",
	} {
		if got := hmacverify.DeliveryID(event, sig); got != want+"-"+sig {
			t.Errorf("%q: got %s, want %s-%s", event, got, want, sig)
		}
	}
	for _, sig := range []string{"", sig[:63], sig + "0", strings.ToUpper(sig), "/" + sig[1:], sig + "\n"} {
		for _, event := range []string{"chat-rated", "", "invented"} {
			if recovered(func() { hmacverify.DeliveryID(event, sig) }) == nil {
				t.Errorf("event %q, signature %q: got no panic", event, sig)
			}
		}
	}
}

// FuzzHandler checks that a request is accepted exactly when the reference
// accepts it, and that its body and payload are then passed on. A fuzzer cannot
// sign what it finds: signed is the body, and sent between before and after.
func FuzzHandler(f *testing.F) {
	for _, body := range []string{examples(f)[1].body, "{", `[{"rating":"x"}]`} {
		f.Add("POST", "", body, "", uint8(1))
		f.Add("POST", "", body, "", uint8(2))
		f.Add("GET", "", body, "", uint8(1))
		f.Add("POST", "\ufeff", body, "\n", uint8(1))
	}
	const limit = 500
	rc := newReceiver(f, "another secret", secret)
	rc.MaxBodyBytes = limit
	f.Fuzz(func(t *testing.T, method, before, body, after string, copies uint8) {
		sent, sig := before+body+after, reference(secret, body)
		accept := method == "POST" && copies%3 == 1 && sent == body && len(sent) <= limit &&
			json.Valid([]byte(sent))

		logged := recordLog()
		r := newRequest(method, sent, slices.Repeat([]string{sig}, int(copies%3))...)
		var passed *http.Request
		w := httptest.NewRecorder()
		rc.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			passed = r
		})).ServeHTTP(w, r)
		if (passed != nil) != accept {
			t.Fatalf("%s %q, %d times the signature of %q: got %d, want accepted: %t",
				method, sent, copies%3, body, w.Code, accept)
		}
		if passed == nil {
			shown := fmt.Sprint(w.Body, logged.records)
			if w.Code < 400 || len(logged.records) != 1 ||
				strings.Contains(shown, reference(secret, sent)) || strings.Contains(shown, secret) {
				t.Errorf("got response %d, shown %q; want neither signature nor secret", w.Code, shown)
			}
			return
		}
		if got, err := io.ReadAll(passed.Body); string(got) != sent || err != nil {
			t.Errorf("got body %q, %v; want %q, nil", got, err, sent)
		}
		var want hmacverify.Payload
		wantErr := json.Unmarshal([]byte(sent), &want)
		p, err := hmacverify.PayloadFrom(passed.Context())
		if p == nil || *p != want || (err == nil) != (wantErr == nil) {
			t.Errorf("got payload %+v, %v; want %+v, %v", p, err, want, wantErr)
		}
	})
}

// BenchmarkHandler measures one request, without a server.
func BenchmarkHandler(b *testing.B) {
	ex := examples(b)[0]
	handler := newReceiver(b, secret).Handler(http.HandlerFunc(
		func(http.ResponseWriter, *http.Request) {}))
	body := strings.NewReader(ex.body)
	r, w := newRequest("POST", ex.body, ex.sig), httptest.NewRecorder()
	r.Body = io.NopCloser(body)
	b.ReportAllocs()
	for b.Loop() {
		body.Reset(ex.body)
		handler.ServeHTTP(w, r)
	}
	if w.Code != 200 {
		b.Errorf("got %d %s, want 200", w.Code, w.Body)
	}
}
