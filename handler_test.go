//go:build go1.24

package hmacverify_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
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
	p, err := hmacverify.PayloadFrom(r.Context())
	if err != nil {
		slog.Error("payload not decoded", "err", err)
		http.Error(w, "payload not decoded", http.StatusInternalServerError)
		return
	}
	fmt.Println(r.Header.Get(hmacverify.EventHeader), p.User.Name, p.Rating)
}

// A service, and a delivery that it receives.
func ExampleReceiver_Handler() {
	rc, err := hmacverify.New("secr3t") // in a service, os.Getenv("GUURU_SECRET")
	if err != nil {
		log.Fatal(err)
	}
	http.Handle("/guuru", rc.Handler(http.HandlerFunc(deliver)))
	server := http.Server{
		Addr:    ":8000",
		Handler: http.DefaultServeMux,
		// Without it, anyone can hold a connection by announcing a body and
		// sending none.
		ReadTimeout: 10 * time.Second,
	}
	// In a service: log.Fatal(server.ListenAndServe())

	body := `{"user":{"name":"João"},"status":"rated","rating":1}`
	sig := "34e22c669b2907701d81f275b3800ce84645f3f982e235abede8a4e7a0fdb962"
	r := httptest.NewRequest("POST", "/guuru", strings.NewReader(body))
	r.Header.Set("X-Guuru-Event", "chat-rated")
	r.Header.Set("X-Guuru-Hmac-Sha256", sig)
	w := httptest.NewRecorder()
	server.Handler.ServeHTTP(w, r)
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
	body := []byte(`{"user":{"name":"Ada"},"rating":5}`)
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
// with the old secret. When none come any more, drop it.
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
// explain why. Anyone can send such a body, so keep only a few.
func ExampleReceiver_errorHandler() {
	dir, err := os.MkdirTemp("", "mismatches-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir) // not in a service
	var mu sync.Mutex
	keep := func(r *http.Request) error {
		mu.Lock()
		defer mu.Unlock()
		if kept, err := os.ReadDir(dir); err != nil || len(kept) >= 5 {
			return cmp.Or(err, errors.New("five bodies are kept already"))
		}
		name := "mismatch-" + r.Header.Get(hmacverify.SignatureHeader) + ".json"
		file, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
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

	r := httptest.NewRequest("POST", "/guuru", strings.NewReader(`{"rating": 5}`))
	r.Header.Set(hmacverify.SignatureHeader, hmacverify.Sign("secr3t", []byte(`{"rating":5}`)))
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	fmt.Println(w.Code)
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, file := range files {
		body, _ := os.ReadFile(file)
		fmt.Println(filepath.Base(file), string(body))
	}
	// Output:
	// 400
	// mismatch-5601c1c9089b4c4809a072471712737221cf09c0b89441aa5029ae9f94a56c51.json {"rating": 5}
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
		// If there are several, the joined value is malformed.
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
	fmt.Println(p.Rating, err)
	// Output:
	// 5 <nil>
}

// Detect duplicates. In a service, the set of stored deliveries is a table.
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

func signed(body string) *http.Request {
	return newRequest("POST", body, reference(secret, body))
}

// broken returns a request whose body ends with err. What arrived is signed.
func broken(body string, err error) *http.Request {
	r := signed(body)
	r.Body = io.NopCloser(io.MultiReader(strings.NewReader(body), iotest.ErrReader(err)))
	return r
}

// accept passes r to rc, which must accept it. It returns the request that the
// next handler received. The response must be that of the next handler.
func accept(t *testing.T, rc *hmacverify.Receiver, r *http.Request) (accepted *http.Request) {
	t.Helper()
	recorder := httptest.NewRecorder()
	rc.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		accepted = r
		if w != recorder { // which may have more methods
			t.Errorf("the next handler got a %T, want the server's ResponseWriter", w)
		}
		w.WriteHeader(http.StatusTeapot)
	})).ServeHTTP(recorder, r)
	if accepted == nil {
		t.Fatalf("rejected with %d %q", recorder.Code, recorder.Body)
	}
	if recorder.Code != http.StatusTeapot || recorder.Body.Len()+len(recorder.Header()) > 0 {
		t.Errorf("got response %+v, want that of the next handler", recorder)
	}
	return accepted
}

// reject passes r to rc, which must reject it. It returns what ErrorHandler
// received. The response, and the log, must be those of ErrorHandler.
func reject(t *testing.T, rc *hmacverify.Receiver, r *http.Request) (*http.Request, error) {
	t.Helper()
	var rejected *http.Request
	var err error
	calls := 0
	rc.ErrorHandler = func(w http.ResponseWriter, r *http.Request, e error) {
		rejected, err, calls = r, e, calls+1
		w.WriteHeader(http.StatusTeapot)
	}
	log, recorder := logs(), httptest.NewRecorder()
	rc.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("the request reached the next handler")
	})).ServeHTTP(recorder, r)
	if calls != 1 {
		t.Fatalf("got %d calls of ErrorHandler, want 1", calls)
	}
	if recorder.Code != http.StatusTeapot || recorder.Body.Len()+len(recorder.Header())+log.Len() > 0 {
		t.Errorf("got response %+v and log %q, want those of ErrorHandler", recorder, log)
	}
	return rejected, err
}

func TestDocumentedRequests(t *testing.T) {
	for _, ex := range examples(t) {
		t.Run(ex.name, func(t *testing.T) {
			r := accept(t, newReceiver(t, secret), newRequest("POST", ex.body, ex.sig))
			p, err := hmacverify.PayloadFrom(r.Context())
			if err != nil {
				t.Fatal(err)
			}
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

// Headers and errors are spelled as documented.
func TestNames(t *testing.T) {
	for got, want := range map[any]string{
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
	} {
		if fmt.Sprint(got) != want {
			t.Errorf("got %v, want %s", got, want)
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
			if rc != nil || fmt.Sprint(err) != tc.want {
				t.Errorf("got %v, %v; want nil, %s", rc, err, tc.want)
			}
			if errors.Is(err, hmacverify.ErrEmptySecret) != strings.Contains(tc.want, "empty") {
				t.Errorf("got %v, which must wrap ErrEmptySecret only if it says so", err)
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

// A programming mistake panics at once, and a panic of the next handler goes on
// to net/http.
func TestPanics(t *testing.T) {
	var none *hmacverify.Receiver
	rc := newReceiver(t, secret)
	abort := rc.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		panic(http.ErrAbortHandler)
	}))
	for name, call := range map[string]func(){
		"Handler of a nil Receiver": func() { none.Handler(http.NotFoundHandler()) },
		"Handler(nil)":              func() { rc.Handler(nil) },
		"Handler of a nil func":     func() { rc.Handler(http.HandlerFunc(nil)) },
		"panic of the next handler": func() { abort.ServeHTTP(httptest.NewRecorder(), signed("{}")) },
	} {
		if !panics(call) {
			t.Errorf("%s: got no panic", name)
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

func TestHandlerRejects(t *testing.T) {
	const body = `{"rating":5}` // 12 bytes
	sig, forged := reference(secret, body), strings.Repeat("0", 64)
	missing, malformed := hmacverify.ErrMissingSignature, hmacverify.ErrMalformedSignature
	consumed := newRequest("POST", "", sig)
	consumed.ContentLength = 12
	noBody := signed("")
	noBody.Body = nil // it did not come from a server
	for _, tc := range []struct {
		name   string
		r      *http.Request
		want   error
		detail string // after the text of want
	}{
		{"GET", newRequest("GET", body, sig), hmacverify.ErrMethodNotAllowed, ": GET"},
		{"GET, unsigned", newRequest("GET", ""), hmacverify.ErrMethodNotAllowed, ": GET"},
		{"long method", newRequest(strings.Repeat("X", 1000), body, sig),
			hmacverify.ErrMethodNotAllowed, ": XXXXXXXXXXXXXXXXXXXX"},

		{"unsigned", newRequest("POST", body), missing, ""},
		{"empty signature", newRequest("POST", body, ""), missing, ""},
		{"leading space", newRequest("POST", body, " "+sig), malformed, ": length 65, want 64"},
		{"trailing space", newRequest("POST", body, sig+" "), malformed, ": length 65, want 64"},
		{"uppercase", newRequest("POST", body, strings.ToUpper(sig)), malformed, ": not lowercase hex"},
		{"two equal", newRequest("POST", body, sig, sig), malformed, ": 2 headers, want 1"},
		{"valid first", newRequest("POST", body, sig, forged, ""), malformed, ": 3 headers, want 1"},
		{"valid last", newRequest("POST", body, "", sig), malformed, ": 2 headers, want 1"},

		{"forged", newRequest("POST", body, forged),
			hmacverify.ErrSignatureMismatch, ": read 12 bytes, Content-Length 12"},
		{"forged and not JSON", newRequest("POST", "}", forged),
			hmacverify.ErrSignatureMismatch, ": read 1 bytes, Content-Length 1"},
		{"consumed in front", consumed,
			hmacverify.ErrSignatureMismatch, ": read 0 bytes, Content-Length 12"},
		{"not JSON", signed("{}}"),
			hmacverify.ErrMalformedPayload, ": invalid character '}' after top-level value"},
		{"nil body", noBody, hmacverify.ErrMalformedPayload, ": unexpected end of JSON input"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := reject(t, newReceiver(t, secret), tc.r)
			if !errors.Is(err, tc.want) || err.Error() != tc.want.Error()+tc.detail {
				t.Errorf("got %v, want %v%s", err, tc.want, tc.detail)
			}
		})
	}
}

func TestOnlyPostIsAllowed(t *testing.T) {
	for _, method := range []string{
		"", "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "PRI", "PUT", "QUERY", "TRACE",
		"post", "Post", "POST ", " POST", "POSTS", "POS", "POST\x00", "XPOST",
	} {
		r := newRequest(method, "{}", reference(secret, "{}"))
		r.Header.Set("X-Http-Method-Override", "POST")
		_, err := reject(t, newReceiver(t, secret), r)
		if !errors.Is(err, hmacverify.ErrMethodNotAllowed) {
			t.Errorf("%q: got %v, want %v", method, err, hmacverify.ErrMethodNotAllowed)
		}
	}
}

// The zero Receiver accepts nothing, and says so before anything else.
func TestZeroReceiver(t *testing.T) {
	for _, r := range []*http.Request{
		newRequest("POST", "{}", reference("", "{}")),
		newRequest("POST", "{}"),
		newRequest("GET", ""),
	} {
		if _, err := reject(t, new(hmacverify.Receiver), r); err != hmacverify.ErrEmptySecret {
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
	r := accept(t, inner, accept(t, outer, signed(`{"rating":5}`)))
	if p, err := hmacverify.PayloadFrom(r.Context()); p == nil || p.Rating != 5 || err != nil {
		t.Errorf("got payload %+v, %v; want a rating of 5", p, err)
	}
	for _, inner := range []*hmacverify.Receiver{newReceiver(t, "another secret"), {}} {
		r, _ := reject(t, inner, accept(t, outer, signed("{}")))
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
	for _, affix := range []string{"\n", "\r\n", "\r", " ", "\t", "\x00", "\x1a", "\ufeff", "\u00a0"} {
		bodies = append(bodies, affix+body, body+affix)
	}
	rc := newReceiver(t, secret)
	accept(t, rc, signed(body)) // its signature must not stick
	for _, signed := range bodies {
		sig := reference(secret, signed)
		for _, sent := range bodies {
			if sent == signed {
				continue
			}
			_, err := reject(t, rc, newRequest("POST", sent, sig))
			if !errors.Is(err, hmacverify.ErrSignatureMismatch) {
				t.Errorf("%q with the signature of %q: got %v", sent, signed, err)
			}
			for _, v := range verifiers {
				if v.verify(secret, sent, sig) != hmacverify.ErrSignatureMismatch {
					t.Errorf("%s accepts %q with the signature of %q", v.name, sent, signed)
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
		{"PUT", rc, newRequest("PUT", long, sig)},
		{"unsigned", rc, newRequest("POST", long)},
		{"malformed", rc, newRequest("POST", long, "sha256="+sig)},
		{"doubled", rc, newRequest("POST", long, sig, sig)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			source := strings.NewReader(long)
			tc.r.Body = io.NopCloser(source)
			tc.rc.MaxBodyBytes = limit
			rejected, _ := reject(t, tc.rc, tc.r)
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

// Once the body is read, ErrorHandler gets what was read.
func TestRejectedBodyIsKept(t *testing.T) {
	const limit = 64
	long := strings.Repeat("x", limit+1)
	for _, tc := range []struct {
		name string
		r    *http.Request
		want string
	}{
		{"too large", signed(long), long[:limit]},
		{"truncated", broken(`{"rat`, io.ErrUnexpectedEOF), `{"rat`},
		{"mismatch", newRequest("POST", "{}", strings.Repeat("0", 64)), "{}"},
		{"empty", newRequest("POST", "", strings.Repeat("0", 64)), ""},
		{"not JSON", signed("{}}"), "{}}"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			rc := newReceiver(t, secret)
			rc.MaxBodyBytes = limit
			rejected, _ := reject(t, rc, tc.r)
			if body, err := io.ReadAll(rejected.Body); string(body) != tc.want || err != nil {
				t.Errorf("got body %q, %v; want %q, nil", body, err, tc.want)
			}
			p, err := hmacverify.PayloadFrom(rejected.Context())
			if p != nil || err != hmacverify.ErrNoPayload {
				t.Errorf("got payload %v, %v; want nil, %v", p, err, hmacverify.ErrNoPayload)
			}
		})
	}
}

// Handlers in front, such as a logger, find their request as it was, apart from
// what was read from its Body.
func TestOriginalRequestIsUnchanged(t *testing.T) {
	logs() // not to standard error
	for name, r := range map[string]*http.Request{
		"accepted":  signed("{}"),
		"GET":       newRequest("GET", "{}", reference(secret, "{}")),
		"unsigned":  newRequest("POST", "{}"),
		"mismatch":  newRequest("POST", "{}", strings.Repeat("0", 64)),
		"too large": signed(strings.Repeat("x", 100)),
		"not JSON":  signed("x"),
	} {
		t.Run(name, func(t *testing.T) {
			r.ContentLength, r.TransferEncoding = -1, []string{"chunked"}
			before, header := *r, maps.Clone(r.Header)
			rc := newReceiver(t, secret)
			rc.MaxBodyBytes = 64
			rc.Handler(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), r)
			if !reflect.DeepEqual(*r, before) || !reflect.DeepEqual(r.Header, header) {
				t.Errorf("got %+v\nwant %+v", *r, before)
			}
		})
	}
}

// The error names the limit that was exceeded.
func TestTooLargeBody(t *testing.T) {
	smaller := signed(strings.Repeat("x", 60))
	smaller.Body = http.MaxBytesReader(nil, smaller.Body, 20) // by middleware in front
	for limit, r := range map[int64]*http.Request{64: signed(strings.Repeat("x", 65)), 20: smaller} {
		rc := newReceiver(t, secret)
		rc.MaxBodyBytes = 64
		_, err := reject(t, rc, r)
		want := fmt.Sprintf("hmacverify: body over limit of %d bytes: http: request body too large", limit)
		var tooLarge *http.MaxBytesError
		if err.Error() != want || !errors.As(err, &tooLarge) || tooLarge.Limit != limit {
			t.Errorf("got %v, want %s, with the limit in the error", err, want)
		}
	}
}

// A truncated body is rejected even if what arrived is signed.
func TestUnreadableBody(t *testing.T) {
	for _, cause := range []error{io.ErrUnexpectedEOF, http.ErrBodyReadAfterClose} {
		_, err := reject(t, newReceiver(t, secret), broken("{}", cause))
		want := "hmacverify: read body: " + cause.Error()
		if err.Error() != want || !errors.Is(err, cause) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestMaxBodyBytes(t *testing.T) {
	for _, tc := range []struct{ limit, longest int64 }{
		{10, 10},
		{2 << 20, 2 << 20},
		{0, 1 << 20},
		{-1, 1 << 20},
	} {
		t.Run(fmt.Sprint(tc.limit), func(t *testing.T) {
			rc := newReceiver(t, secret)
			rc.MaxBodyBytes = tc.limit
			body := `"` + strings.Repeat("x", int(tc.longest)-2) + `"`
			accept(t, rc, signed(body))
			reject(t, rc, signed(body+" "))
		})
	}
	rc := newReceiver(t, secret)
	rc.MaxBodyBytes = 1<<63 - 1 // adding 1 would overflow
	accept(t, rc, signed("{}"))
}

// A large Content-Length with a body of one byte does not cost much memory.
func TestMemoryFollowsArrivedBytes(t *testing.T) {
	rc := newReceiver(t, secret)
	rc.MaxBodyBytes = 1 << 40
	r := newRequest("POST", "{", reference(secret, ""))
	r.ContentLength = 1 << 30
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	reject(t, rc, r)
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 64<<10 {
		t.Errorf("got %d bytes allocated for one byte of body, want at most 64 KiB", got)
	}
}

// logs directs slog.Default to a buffer. If a record's context has a value for
// contextKey, it is logged, too. The time is left out, and so is an "err" that is
// not an error. The first default cannot come back: it would call itself.
func logs() *bytes.Buffer {
	log := new(bytes.Buffer)
	withoutTime := func(_ []string, a slog.Attr) slog.Attr {
		_, isError := a.Value.Any().(error)
		if a.Key == slog.TimeKey || a.Key == "err" && !isError {
			return slog.Attr{}
		}
		return a
	}
	handler := slog.NewTextHandler(log, &slog.HandlerOptions{ReplaceAttr: withoutTime})
	slog.SetDefault(slog.New(contextHandler{handler}))
	return log
}

type contextKey struct{}

type contextHandler struct{ slog.Handler }

func (h contextHandler) Handle(ctx context.Context, r slog.Record) error {
	if value := ctx.Value(contextKey{}); value != nil {
		r.Add("context", value)
	}
	return h.Handler.Handle(ctx, r)
}

// DefaultErrorHandler responds, and logs one record.
func TestDefaultErrorHandler(t *testing.T) {
	const (
		noMatch    = "Invalid request, non-matching HMAC-SHA256 received"
		unreadable = "Invalid request, unreadable body"
	)
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
		{hmacverify.ErrMalformedPayload, 400, "Invalid request, body is not JSON"},
		{hmacverify.ErrNoPayload, 400, unreadable},
		{errors.New("unknown"), 400, unreadable},
	} {
		t.Run(tc.err.Error(), func(t *testing.T) {
			log, w := logs(), httptest.NewRecorder()
			err := fmt.Errorf("detail: %w", tc.err)
			hmacverify.DefaultErrorHandler(w, httptest.NewRequest("POST", "/", nil), err)
			header := http.Header{
				"Content-Type":           {"text/plain; charset=utf-8"},
				"X-Content-Type-Options": {"nosniff"},
			}
			if tc.status == 405 {
				header.Set("Allow", "POST")
			}
			got := w.Result().Header // as it was sent
			if w.Code != tc.status || w.Body.String() != tc.text || !reflect.DeepEqual(got, header) {
				t.Errorf("got %d %q %v\nwant %d %q %v", w.Code, w.Body, got, tc.status, tc.text, header)
			}
			want := fmt.Sprintf("level=WARN msg=rejected err=%q from=192.0.2.1:1234\n", err)
			if log.String() != want {
				t.Errorf("got log %s\nwant %s", log, want)
			}
		})
	}
}

// Without an ErrorHandler, a rejection is one record, with the request's
// context. Nothing in it but "err" comes from the client.
func TestRejectionIsLogged(t *testing.T) {
	log := logs()
	r := newRequest("POST", "{}", strings.Repeat("0", 64))
	for _, name := range []string{"X-Forwarded-For", "X-Real-Ip", "Forwarded", "True-Client-Ip",
		"Cf-Connecting-Ip", "User-Agent", "X-Guuru-Event", "Idempotency-Key"} {
		r.Header.Set(name, "203.0.113.1")
	}
	r = r.WithContext(context.WithValue(r.Context(), contextKey{}, "kept"))
	w := httptest.NewRecorder()
	newReceiver(t, secret).Handler(http.NotFoundHandler()).ServeHTTP(w, r)
	const want = `level=WARN msg=rejected ` +
		`err="hmacverify: signature mismatch: read 2 bytes, Content-Length 2" ` +
		"from=192.0.2.1:1234 context=kept\n"
	if w.Code != 400 || log.String() != want {
		t.Errorf("got status %d and log %s\nwant 400 and %s", w.Code, log, want)
	}
}

func TestHandlerPassesTheRequestOn(t *testing.T) {
	const body = `{"status":"rated"}`
	r := signed(body)
	r.ContentLength, r.TransferEncoding = 1, []string{"chunked"} // as after decompressing middleware
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Guuru-Event", "chat-rated")
	ctx, cancel := context.WithCancel(context.WithValue(r.Context(), contextKey{}, "value"))
	r = r.WithContext(ctx)

	got := accept(t, newReceiver(t, secret), r)
	if got == r {
		t.Error("got the original request, want a copy")
	}
	if got.Context().Value(contextKey{}) != "value" {
		t.Error("the context's values are lost")
	}
	if cancel(); got.Context().Err() == nil {
		t.Error("the context is not canceled with that of the original request")
	}
	if got.ContentLength != int64(len(body)) || got.TransferEncoding != nil {
		t.Errorf("got ContentLength %d, TransferEncoding %q; want %d and none",
			got.ContentLength, got.TransferEncoding, len(body))
	}
	_, writesTo := got.Body.(io.WriterTo)
	if methods := reflect.TypeOf(got.Body).NumMethod(); !writesTo || methods != 3 {
		t.Errorf("got a body with %d methods, want Read, Close, and WriteTo", methods)
	}
	text, err := io.ReadAll(got.Body)
	if string(text) != body || err != nil || got.Body.Close() != nil {
		t.Errorf("got body %q, %v; want %q, nil", text, err, body)
	}
	got = got.WithContext(r.Context())
	got.Body, got.ContentLength, got.TransferEncoding = r.Body, r.ContentLength, r.TransferEncoding
	if !reflect.DeepEqual(got, r) {
		t.Errorf("got %+v\nwant %+v, apart from context, body and length", got, r)
	}
}

// A handler may keep its request, as one does that works in the background.
// Other requests change neither its body nor its payload.
func TestBodyOutlivesItsRequest(t *testing.T) {
	rc := newReceiver(t, secret)
	body := func(i int) string { return fmt.Sprintf(`{"id":"%03d"}`, i) }
	var accepted, rejected [10]*http.Request
	for i := range accepted {
		accepted[i] = accept(t, rc, signed(body(i)))
		rejected[i], _ = reject(t, rc, newRequest("POST", body(i), strings.Repeat("0", 64)))
	}
	for i := range accepted {
		for _, r := range []*http.Request{accepted[i], rejected[i]} {
			if got, err := io.ReadAll(r.Body); string(got) != body(i) || err != nil {
				t.Errorf("got body %q, %v; want %q, nil", got, err, body(i))
			}
		}
		p, err := hmacverify.PayloadFrom(accepted[i].Context())
		if err != nil || body(i) != fmt.Sprintf(`{"id":%q}`, p.ID) {
			t.Errorf("got payload %+v, %v; want that of %s", p, err, body(i))
		}
	}
}

// Concurrent deliveries do not get each other's payload, body, or HMAC.
func TestConcurrentDeliveries(t *testing.T) {
	secrets := []string{"new secret", "old secret"}
	rc := newReceiver(t, secrets...)
	handler := rc.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, err := hmacverify.PayloadFrom(r.Context())
		body, readErr := io.ReadAll(r.Body)
		if err != nil || readErr != nil || string(body) != fmt.Sprintf(`{"id":%q}`, p.ID) {
			t.Errorf("got body %s, %v with payload %+v, %v", body, readErr, p, err)
		}
		io.WriteString(w, p.ID)
	}))
	var wg sync.WaitGroup
	for g := range 64 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range 50 {
				id := fmt.Sprintf("%d-%d", g, i)
				body := fmt.Sprintf(`{"id":%q}`, id)
				w := httptest.NewRecorder()
				handler.ServeHTTP(w, newRequest("POST", body, reference(secrets[(g+i)%2], body)))
				if w.Code != 200 || w.Body.String() != id {
					t.Errorf("%s: got %d %q, want 200 and the id", id, w.Code, w.Body)
				}
			}
		}()
	}
	wg.Wait()
}

// exchange sends a raw request to a Receiver with a limit of 1,000 bytes.
func exchange(t *testing.T, request string) (resp *http.Response, text string) {
	t.Helper()
	rc := newReceiver(t, secret)
	rc.MaxBodyBytes = 1000
	success := func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "Success!") }
	server := httptest.NewServer(rc.Handler(http.HandlerFunc(success)))
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

func TestParsePayload(t *testing.T) {
	type payload = hmacverify.Payload
	const ( // whether there is an error, its types, and whether it is ErrMalformedPayload
		none      = "false false false false"
		typeError = "true true false false"
		malformed = "true false true true"
	)
	for _, tc := range []struct {
		body string
		want *payload
		err  string
	}{
		{`{}`, &payload{}, none},
		{`null`, &payload{}, none},
		{` {"status" : "rated"} `, &payload{Status: "rated"}, none},
		{`{"user":{"isLead":true,"isUser":true,"age":7},"new":[{}],"status":null}`,
			&payload{User: hmacverify.User{IsLead: true, IsUser: true}}, none},
		{`{"RATING":2,"rating":1,"Status":"rated"}`, &payload{Rating: 1, Status: "rated"}, none},
		{"{\"status\":\"\xff\"}", &payload{Status: "\ufffd"}, none},

		{`{"rating":"good","status":"rated"}`, &payload{Status: "rated"}, typeError},
		{`{"user":"joao","ratedAt":"today","language":"en"}`, &payload{Language: "en"}, typeError},
		{`{"user":{"name":7,"locale":"en"},"rating":1}`,
			&payload{User: hmacverify.User{Locale: "en"}, Rating: 1}, typeError},
		{`{"createdAt":1.5e12,"rating":4.0,"status":"rated"}`, &payload{Status: "rated"}, typeError},
		{`{"createdAt":1.5e400,"rating":1}`, &payload{Rating: 1}, typeError},
		{`{"rating":99999999999999999999,"closedAt":1}`, &payload{ClosedAt: 1}, typeError},
		{`[]`, &payload{}, typeError},
		{`"rated"`, &payload{}, typeError},

		{``, nil, malformed},
		{" \n", nil, malformed},
		{"{}\x00", nil, malformed},
		{`{`, nil, malformed},
		{`{} {}`, nil, malformed},
		{"\ufeff{}", nil, malformed},
		{`status=rated`, nil, malformed},
		{`{"rating":"of another type","status":}`, nil, malformed},
		{strings.Repeat("[", 10_001) + strings.Repeat("]", 10_001), nil, malformed}, // too deep
	} {
		t.Run(fmt.Sprintf("%.50s", tc.body), func(t *testing.T) {
			p, err := hmacverify.ParsePayload([]byte(tc.body))
			if !reflect.DeepEqual(p, tc.want) {
				t.Errorf("got payload %+v, want %+v", p, tc.want)
			}
			var typeErr *json.UnmarshalTypeError
			var syntaxErr *json.SyntaxError
			got := fmt.Sprint(err != nil, errors.As(err, &typeErr), errors.As(err, &syntaxErr),
				errors.Is(err, hmacverify.ErrMalformedPayload))
			if got != tc.err {
				t.Errorf("got %v (%s), want %s", err, got, tc.err)
			}
		})
	}
}

// PayloadFrom returns what ParsePayload returned, and the same pointer each
// time. The Handler passes on JSON of any structure.
func TestPayloadFrom(t *testing.T) {
	for _, body := range []string{`{"rating":5}`, `{"rating":"good","status":"rated"}`, `[]`, `null`} {
		want, wantErr := hmacverify.ParsePayload([]byte(body))
		r := accept(t, newReceiver(t, secret), signed(body))
		p, err := hmacverify.PayloadFrom(r.Context())
		if !reflect.DeepEqual(p, want) || !reflect.DeepEqual(err, wantErr) {
			t.Errorf("%s: got %+v, %v; want %+v, %v", body, p, err, want, wantErr)
		}
		if again, _ := hmacverify.PayloadFrom(r.Context()); again != p {
			t.Errorf("%s: got another pointer the second time", body)
		}
		if got, err := io.ReadAll(r.Body); string(got) != body || err != nil {
			t.Errorf("got body %q, %v; want %q, nil", got, err, body)
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
		"chat-rated\x00": "unknown", "../chat-rated": "unknown",
	} {
		if got := hmacverify.DeliveryID(event, sig); got != want+"-"+sig {
			t.Errorf("%q: got %s, want %s-%s", event, got, want, sig)
		}
	}
	for _, sig := range []string{"", sig[:63], sig + "0", strings.ToUpper(sig), "/" + sig[1:]} {
		if !panics(func() { hmacverify.DeliveryID("chat-rated", sig) }) {
			t.Errorf("signature %q: got no panic", sig)
		}
	}
}

// FuzzHandler checks that a request is accepted exactly when the reference
// accepts it, and that its body and payload are then passed on. A fuzzer cannot
// sign the bodies that it finds, so the signature is that of the body without
// some bytes at its ends, or the body sent is the shorter one.
func FuzzHandler(f *testing.F) {
	for _, ex := range examples(f) {
		f.Add("POST", ex.body, uint8(0), uint8(0), false, uint8(1))
		f.Add("POST", ex.body, uint8(0), uint8(0), false, uint8(2))
		f.Add("POST", ex.body, uint8(0), uint8(0), false, uint8(0))
		f.Add("GET", ex.body, uint8(0), uint8(0), false, uint8(1))
	}
	f.Add("POST", "{}\n", uint8(0), uint8(1), false, uint8(1))
	f.Add("POST", "\ufeff{}", uint8(3), uint8(0), true, uint8(1))
	f.Add("POST", "{", uint8(0), uint8(0), false, uint8(1))
	f.Add("POST", `[{"rating":"x"}]`, uint8(0), uint8(0), false, uint8(1))
	const limit = 500
	rc := newReceiver(f, "another secret", secret)
	rc.MaxBodyBytes = limit
	log := logs()
	f.Fuzz(func(t *testing.T, method, sent string, head, tail uint8, shorter bool, copies uint8) {
		signed := sent[min(int(head), len(sent)):]
		signed = signed[:max(len(signed)-int(tail), 0)]
		if shorter {
			sent, signed = signed, sent
		}
		sig := reference(secret, signed)
		accept := method == "POST" && copies%3 == 1 && sent == signed && len(sent) <= limit &&
			json.Valid([]byte(sent))

		log.Reset()
		r := newRequest(method, sent, slices.Repeat([]string{sig}, int(copies%3))...)
		var passed *http.Request
		w := httptest.NewRecorder()
		rc.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			passed = r
		})).ServeHTTP(w, r)
		if (passed != nil) != accept {
			t.Fatalf("%s %q, %d times the signature of %q: got %d, want accepted: %t",
				method, sent, copies%3, signed, w.Code, accept)
		}
		if passed == nil {
			shown := w.Body.String() + log.String()
			if w.Code < 400 || strings.Count(log.String(), "\n") != 1 ||
				strings.Contains(shown, reference(secret, sent)) || strings.Contains(shown, secret) {
				t.Errorf("got response %d %q, log %q; want neither signature nor secret", w.Code, w.Body, log)
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

// BenchmarkHandler compares a request to Handler with its baseline, a handler
// that reads, hashes, and decodes the body. Neither includes a server.
func BenchmarkHandler(b *testing.B) {
	ex := examples(b)[0]
	var digest [sha256.Size]byte
	var payload *hmacverify.Payload // stored, so that the compiler keeps the work
	for _, bm := range []struct {
		name    string
		handler http.Handler
	}{
		{"baseline", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			digest = sha256.Sum256(body)
			payload = new(hmacverify.Payload)
			if err := cmp.Or(err, json.Unmarshal(body, payload)); err != nil {
				b.Error(err)
			}
		})},
		{"Receiver.Handler", newReceiver(b, secret).Handler(http.HandlerFunc(
			func(w http.ResponseWriter, r *http.Request) {
				payload, _ = hmacverify.PayloadFrom(r.Context())
			}))},
	} {
		b.Run(bm.name, func(b *testing.B) {
			body := strings.NewReader(ex.body)
			r, w := newRequest("POST", ex.body, ex.sig), httptest.NewRecorder()
			r.Body = io.NopCloser(body)
			b.ReportAllocs()
			for b.Loop() {
				body.Reset(ex.body)
				payload = nil
				bm.handler.ServeHTTP(w, r)
				if payload == nil {
					b.Fatalf("no payload: %d %s, %x", w.Code, w.Body, digest)
				}
			}
		})
	}
}
