//go:build go1.24

package hmacverify_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
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
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"example.com/hmacverify"
)

// A handler that acts on one event and ignores the others. It responds with 200
// to events that it ignores, and with 500 if it cannot process one. On failure,
// it logs enough to find the delivery.
func ExamplePayloadFrom() {
	deliver := func(w http.ResponseWriter, r *http.Request) {
		switch event := r.Header.Get(hmacverify.EventHeader); event {
		case hmacverify.EventChatRated:
			p, err := hmacverify.PayloadFrom(r.Context())
			if err != nil {
				sig := r.Header.Get(hmacverify.SignatureHeader)
				slog.Error("payload not decoded", "event", event, "signature", sig, "err", err)
				http.Error(w, "payload not decoded", http.StatusInternalServerError)
				return
			}
			fmt.Println(p.User.Name, p.Status, p.Rating, p.RatedAt.Time())
		default:
			slog.Info("ignored", "event", event)
		}
		io.WriteString(w, "Success!")
	}

	rc, err := hmacverify.New("secr3t")
	if err != nil {
		log.Fatal(err)
	}
	handler := rc.Handler(http.HandlerFunc(deliver))
	for _, delivery := range []struct{ event, body string }{
		{"chat-rated", `{"user":{"name":"João"},"status":"rated","rating":1,"ratedAt":1551456472882}`},
		{"chat-rated", `{"rating":"very good"}`},
		{"message-created", `{"rating":"very good"}`},
	} {
		r := httptest.NewRequest("POST", "/guuru", strings.NewReader(delivery.body))
		r.Header.Set(hmacverify.SignatureHeader, hmacverify.Sign("secr3t", []byte(delivery.body)))
		r.Header.Set(hmacverify.EventHeader, delivery.event)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		fmt.Println(w.Code)
	}
	// Output:
	// João rated 1 2019-03-01 16:07:52.882 +0000 UTC
	// 200
	// 500
	// 200
}

// Keep a body whose signature does not match, to compare it with what was sent.
// The file is never replaced: delete it to keep the next body.
func ExampleReceiver_errorHandler() {
	dir, err := os.MkdirTemp("", "guuru-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	mismatch := filepath.Join(dir, "mismatch.json")
	keep := func(body io.Reader) error {
		file, err := os.OpenFile(mismatch, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(file, body)
		return errors.Join(err, file.Close())
	}

	rc, err := hmacverify.New("secr3t")
	if err != nil {
		log.Fatal(err)
	}
	rc.ErrorHandler = func(w http.ResponseWriter, r *http.Request, err error) {
		if errors.Is(err, hmacverify.ErrSignatureMismatch) {
			sig := r.Header.Get(hmacverify.SignatureHeader)
			slog.Info("mismatch", "file", mismatch, "signature", sig, "err", keep(r.Body))
		}
		hmacverify.DefaultErrorHandler(w, r, err)
	}
	handler := rc.Handler(http.NotFoundHandler())

	r := httptest.NewRequest("POST", "/guuru", strings.NewReader(`{"rating": 5}`))
	r.Header.Set(hmacverify.SignatureHeader, hmacverify.Sign("secr3t", []byte(`{"rating":5}`)))
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	fmt.Println(w.Code, w.Body)
	body, err := os.ReadFile(mismatch)
	fmt.Println(string(body), err)
	// Output:
	// 400 Invalid request, non-matching HMAC-SHA256 received
	// {"rating": 5} <nil>
}

// A test of your handler. It sends one request signed with the right secret and
// one signed with another, which must not reach the handler.
func ExampleSign() {
	rc, err := hmacverify.New("test secret")
	if err != nil {
		log.Fatal(err)
	}
	var ratings []int // what the handler under test changes
	handler := rc.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, err := hmacverify.PayloadFrom(r.Context())
		if err != nil {
			http.Error(w, "payload not decoded", http.StatusInternalServerError)
			return
		}
		ratings = append(ratings, p.Rating)
	}))

	body := []byte(`{"user":{"name":"Ada"},"rating":5}`)
	for _, secret := range []string{"test secret", "another secret"} {
		r := httptest.NewRequest("POST", "/guuru", bytes.NewReader(body))
		r.Header.Set(hmacverify.SignatureHeader, hmacverify.Sign(secret, body))
		r.Header.Set(hmacverify.EventHeader, hmacverify.EventChatRated)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		fmt.Println(w.Code, ratings)
	}
	// Output:
	// 200 [5]
	// 400 [5]
}

// A cloud function receives the request as an event. The body may be in Base64,
// and header names may be in any case.
func ExampleParsePayload() {
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

// logged is what went to slog.Default. It is set once: log and slog would call
// each other forever if the first default came back.
var logged recorder

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(&logged))
	os.Exit(m.Run())
}

// A recorder is a slog.Handler that keeps the records and their contexts.
type recorder struct {
	mu      sync.Mutex
	records []string // level, message, and attributes
	ctxs    []context.Context
}

func (rec *recorder) Handle(ctx context.Context, r slog.Record) error {
	text := r.Level.String() + " " + r.Message
	r.Attrs(func(a slog.Attr) bool {
		text += " " + a.String()
		return true
	})
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.records, rec.ctxs = append(rec.records, text), append(rec.ctxs, ctx)
	return nil
}

func (rec *recorder) Enabled(context.Context, slog.Level) bool { return true }
func (rec *recorder) WithAttrs([]slog.Attr) slog.Handler       { return rec }
func (rec *recorder) WithGroup(string) slog.Handler            { return rec }

// take returns the records since the last call, and their contexts.
func (rec *recorder) take() (records []string, ctxs []context.Context) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	records, ctxs = rec.records, rec.ctxs
	rec.records, rec.ctxs = nil, nil
	return records, ctxs
}

func newReceiver(tb testing.TB, secrets ...string) *hmacverify.Receiver {
	tb.Helper()
	rc, err := hmacverify.New(secrets...)
	if err != nil {
		tb.Fatal(err)
	}
	return rc
}

// post returns a request as a server receives it.
func post(body []byte, sig string) *http.Request {
	r := httptest.NewRequest("POST", "/", bytes.NewReader(body))
	r.Header.Set("X-Guuru-Hmac-Sha256", sig)
	return r
}

func signed(body string) *http.Request {
	return post([]byte(body), reference(secret, []byte(body)))
}

// serve passes r to rc. It returns the response and the request that the next
// handler received, or nil if r was rejected. The next handler responds as
// Guuru's samples do.
func serve(rc *hmacverify.Receiver, r *http.Request) (w *httptest.ResponseRecorder, passed *http.Request) {
	w = httptest.NewRecorder()
	rc.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		passed = r
		io.WriteString(w, "Success!")
	})).ServeHTTP(w, r)
	return w, passed
}

// wantPayload returns a payload with what all documented bodies have in common.
// The rest is transcribed by hand.
func wantPayload(name, question, id string, created, accepted, closed, rated hmacverify.Millis) hmacverify.Payload {
	return hmacverify.Payload{
		User:          hmacverify.User{Name: name, Locale: "en"},
		Question:      question,
		Status:        "rated",
		Language:      "en",
		TranscriptURL: "https://chat.guuru.com/guuru-qa/transcripts/" + id,
		Rating:        1,
		Category:      "general",
		CreatedAt:     created, AcceptedAt: accepted, ClosedAt: closed, RatedAt: rated,
	}
}

var wantPayloads = map[string]hmacverify.Payload{
	"example1": wantPayload("joao", "My router lights are all yellow and blinking and I can't connect to the Internet from my laptop, what can I do?",
		"-LZu0Bo-008GtlT9A5Oj", 1551456587480, 1551456623552, 1551456680711, 1551456684623),
	"example2": wantPayload("João", "Is shipping free for Portugal?",
		"-LZu-ZrIBzpNHGswVFuP", 1551456423860, 1551456435840, 1551456470489, 1551456472882),
	"example3": wantPayload("joao", "hello 123",
		"-LZu--MHQ3xLy1RvHqv4", 1551456274349, 1551456289259, 1551456338034, 1551456341040),
}

func TestDocumentedRequests(t *testing.T) {
	for _, ex := range examples(t) {
		t.Run(ex.name, func(t *testing.T) {
			w, r := serve(newReceiver(t, secret), post(ex.body, ex.sig))
			if w.Code != 200 || w.Body.String() != "Success!" || r == nil {
				t.Fatalf("got %d %q, want 200 %q", w.Code, w.Body, "Success!")
			}
			want := wantPayloads[ex.name]
			if p, err := hmacverify.PayloadFrom(r.Context()); err != nil || *p != want {
				t.Errorf("got payload %+v, %v\nwant %+v, nil", p, err, want)
			}
			if body, err := io.ReadAll(r.Body); err != nil || !bytes.Equal(body, ex.body) {
				t.Errorf("got body %q, %v\nwant %q, nil", body, err, ex.body)
			}
		})
	}
}

// Headers and errors are spelled as documented.
func TestNamesAreAsDocumented(t *testing.T) {
	for got, want := range map[any]string{
		hmacverify.SignatureHeader:      "X-Guuru-Hmac-Sha256",
		hmacverify.EventHeader:          "X-Guuru-Event",
		hmacverify.IdempotencyKeyHeader: "Idempotency-Key",
		hmacverify.ErrMethodNotAllowed:  "hmacverify: method not allowed",
		hmacverify.ErrMalformedPayload:  "hmacverify: malformed payload",
		hmacverify.ErrNoPayload:         "hmacverify: no payload in context",
	} {
		if fmt.Sprint(got) != want {
			t.Errorf("got %v, want %s", got, want)
		}
	}
}

func TestDeliveryID(t *testing.T) {
	const sig = "7480a83edb7109f9f0021f6150383879f97e926654b91ac3e2aa591dd8fad851"
	for event, want := range map[string]string{
		hmacverify.EventChatAssigned: "chat-assigned", hmacverify.EventChatOpened: "chat-opened",
		hmacverify.EventChatClosed: "chat-closed", hmacverify.EventChatReopened: "chat-reopened",
		hmacverify.EventChatTransferred: "chat-transferred", hmacverify.EventChatRated: "chat-rated",
		hmacverify.EventMessageCreated: "message-created",
		"chatRated":                    "unknown", "Chat-Rated": "unknown", "chat-rated ": "unknown",
		"": "unknown", "unknown": "unknown", "../chat-rated": "unknown",
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

func TestNewRejectsUnusableSecrets(t *testing.T) {
	for _, tc := range []struct {
		secrets []string
		want    string // "<nil>" if they are accepted
	}{
		{[]string{secret}, "<nil>"},
		{[]string{" "}, "<nil>"},
		{[]string{"\nsecr3t"}, "hmacverify: secret 1 of 1 contains a line break"},
		{[]string{"\x00secr3t\x00"}, "<nil>"},
		{nil, "hmacverify: empty secret"},
		{[]string{""}, "hmacverify: empty secret (1 of 1)"},
		{[]string{secret, ""}, "hmacverify: empty secret (2 of 2)"},
		{[]string{secret, "\x00\x00"}, "hmacverify: empty secret (2 of 2)"},
		{[]string{secret + "\n"}, "hmacverify: secret 1 of 1 contains a line break"},
		{[]string{secret + "\n", ""}, "hmacverify: empty secret (2 of 2)"},
		{[]string{"a", "b", secret + "\r\n"}, "hmacverify: secret 3 of 3 contains a line break"},
		{[]string{secret + "\r"}, "hmacverify: secret 1 of 1 contains a line break"},
	} {
		t.Run(fmt.Sprintf("%q", tc.secrets), func(t *testing.T) {
			rc, err := hmacverify.New(tc.secrets...)
			isEmpty := strings.Contains(tc.want, "empty")
			if fmt.Sprint(err) != tc.want || (rc == nil) != (err != nil) || errors.Is(err, hmacverify.ErrEmptySecret) != isEmpty {
				t.Errorf("got %v, %v; want error %s", rc, err, tc.want)
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
			if err := rc.Verify(nil, reference(signedWith, nil)); !errors.Is(err, want) {
				t.Errorf("signed with %q: got %v, want %v", signedWith, err, want)
			}
		}
		runtime.GC() // a sync.Pool is empty after two
		runtime.GC()
	}
}

// A programming mistake panics at once. A panic in the next handler is left to
// net/http.
func TestProgrammingMistakesPanic(t *testing.T) {
	var none *hmacverify.Receiver
	rc := newReceiver(t, secret)
	panicking := rc.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	for name, call := range map[string]func(){
		"Handler of a nil Receiver": func() { none.Handler(http.NotFoundHandler()) },
		"Handler(nil)":              func() { rc.Handler(nil) },
		"Handler of a nil func":     func() { rc.Handler(http.HandlerFunc(nil)) },
		"panic of the next handler": func() { panicking.ServeHTTP(httptest.NewRecorder(), signed("{}")) },
	} {
		if !panics(call) {
			t.Errorf("%s: got no panic", name)
		}
	}
	if err := none.Verify(nil, reference("", nil)); !errors.Is(err, hmacverify.ErrEmptySecret) {
		t.Errorf("Verify of a nil Receiver: got %v, want %v", err, hmacverify.ErrEmptySecret)
	}
}

// A source is a request body that counts the bytes read from it.
type source struct {
	io.Reader
	n int
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	s.n += n
	return n, err
}

// An outcome is the result of a request.
type outcome struct {
	err    error
	status int
	text   string
}

var (
	noSecret   = outcome{hmacverify.ErrEmptySecret, 500, "Internal Server Error"}
	notAllowed = outcome{hmacverify.ErrMethodNotAllowed, 405, "Invalid request, method is not POST"}
	missing    = outcome{hmacverify.ErrMissingSignature, 400, "Invalid request, non-matching HMAC-SHA256 received"}
	malformed  = outcome{hmacverify.ErrMalformedSignature, 400, "Invalid request, non-matching HMAC-SHA256 received"}
	mismatch   = outcome{hmacverify.ErrSignatureMismatch, 400, "Invalid request, non-matching HMAC-SHA256 received"}
	tooLarge   = outcome{new(http.MaxBytesError), 413, "Invalid request, body is too large"}
	unreadable = outcome{io.ErrUnexpectedEOF, 400, "Invalid request, unreadable body"}
	notJSON    = outcome{hmacverify.ErrMalformedPayload, 400, "Invalid request, body is not JSON"}
)

// check compares a response, all its headers included, with the outcome.
func (o outcome) check(t *testing.T, w *httptest.ResponseRecorder) {
	t.Helper()
	header := http.Header{"Content-Type": {"text/plain; charset=utf-8"}, "X-Content-Type-Options": {"nosniff"}}
	if o.status == 405 {
		header.Set("Allow", "POST")
	}
	if w.Code != o.status || w.Body.String() != o.text || !reflect.DeepEqual(w.Header(), header) {
		t.Errorf("got response %d %q %v\nwant %d %q %v", w.Code, w.Body, w.Header(), o.status, o.text, header)
	}
}

func TestHandlerRejects(t *testing.T) {
	const (
		limit = 64
		body  = `{"status":"rated"}` // 18 bytes
	)
	sig := reference(secret, []byte(body))
	forged := strings.Repeat("0", 64)
	long := `"` + strings.Repeat("x", limit-1) + `"`
	twice := body + body[:17] + "," + body[1:] // more than the smaller limit
	none := []string{}
	for _, tc := range []struct {
		name     string
		zero     bool     // use the zero Receiver
		method   string   // POST if ""
		sigs     []string // the valid one if nil
		body     string   // body if ""
		end      error    // after the body; io.EOF if nil
		smaller  int64    // limit of middleware in front, if not 0
		consumed bool     // by middleware in front
		want     outcome
		detail   string // the error's text contains it
		read     int    // bytes of the body
	}{
		{name: "no secret", zero: true, sigs: []string{reference("", []byte(body))}, want: noSecret},
		{name: "no secret, GET, unsigned", zero: true, method: "GET", sigs: none, want: noSecret},

		{name: "PUT", method: "PUT", want: notAllowed, detail: ": PUT"},
		{name: "lowercase post", method: "post", want: notAllowed, detail: ": post"},
		{name: "GET, unsigned", method: "GET", sigs: none, want: notAllowed, detail: ": GET"},
		{name: "long method", method: strings.Repeat("X", 1000), want: notAllowed, detail: ": XXX"},

		{name: "unsigned", sigs: none, want: missing},
		{name: "unsigned, body over limit", sigs: none, body: long, want: missing},
		{name: "empty signature", sigs: []string{""}, want: missing},
		{name: "leading space", sigs: []string{" " + sig}, want: malformed, detail: "length 65, want 64"},
		{name: "uppercase", sigs: []string{strings.ToUpper(sig)}, want: malformed, detail: "not lowercase hex"},
		{name: "two equal signatures", sigs: []string{sig, sig}, want: malformed, detail: "2 headers, want 1"},
		{name: "valid signature first", sigs: []string{sig, forged, forged}, want: malformed, detail: "3 headers, want 1"},
		{name: "valid signature last", sigs: []string{"", sig}, want: malformed, detail: "2 headers, want 1"},

		{name: "too large", body: long, want: tooLarge, detail: "limit of 64 bytes", read: limit + 1},
		{name: "too large and forged", sigs: []string{forged}, body: long, want: tooLarge, read: limit + 1},
		{name: "smaller limit in front", body: twice, smaller: 20, want: tooLarge, detail: "limit of 20 bytes", read: 21},
		{name: "truncated", end: io.ErrUnexpectedEOF, want: unreadable, detail: "read body: unexpected EOF", read: 18},

		{name: "forged", sigs: []string{forged}, want: mismatch, detail: "read 18 bytes, Content-Length 99", read: 18},
		{name: "forged and not JSON", sigs: []string{forged}, body: body + "}", want: mismatch, read: 19},
		{name: "consumed in front", sigs: []string{sig}, consumed: true, want: mismatch, detail: "read 0 bytes, Content-Length 99"},
		{name: "not JSON", body: body + "}", want: notJSON, read: 19},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sent := cmp.Or(tc.body, body)
			end := iotest.ErrReader(cmp.Or(tc.end, io.EOF))
			source := &source{Reader: io.MultiReader(strings.NewReader(sent), end)}
			if tc.consumed {
				source.Reader = end
			}
			r := httptest.NewRequest("POST", "/", source)
			r.Method, r.ContentLength = cmp.Or(tc.method, "POST"), 99
			r.Header["X-Guuru-Hmac-Sha256"] = tc.sigs
			if tc.sigs == nil {
				r.Header.Set("X-Guuru-Hmac-Sha256", reference(secret, []byte(sent)))
			}
			if tc.smaller > 0 {
				r.Body = http.MaxBytesReader(nil, r.Body, tc.smaller)
			}
			// What an outer Receiver verified does not count here.
			_, outer := serve(newReceiver(t, secret), signed("{}"))
			r = r.WithContext(outer.Context())
			before := *r

			rc := new(hmacverify.Receiver)
			if !tc.zero {
				rc = newReceiver(t, secret)
			}
			handler := rc.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				t.Error("the request reached the next handler")
			}))
			rc.MaxBodyBytes = limit // fields are read for each request
			var errs []error
			read := -1
			rc.ErrorHandler = func(w http.ResponseWriter, got *http.Request, err error) {
				errs = append(errs, err)
				if p, err := hmacverify.PayloadFrom(got.Context()); p != nil || err != hmacverify.ErrNoPayload {
					t.Errorf("got payload %v, %v in ErrorHandler; want nil, %v", p, err, hmacverify.ErrNoPayload)
				}
				hmacverify.DefaultErrorHandler(w, got, err)

				read = source.n
				kept, readErr := io.ReadAll(got.Body)
				want := sent[:min(len(sent), int(cmp.Or(tc.smaller, limit)))]
				if tc.consumed {
					want = ""
				}
				if string(kept) != want || (readErr != nil) != (read == 0 && len(sent) > limit) {
					t.Errorf("got body %q, %v in ErrorHandler; want %q", kept, readErr, want)
				}
			}
			logged.take()
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, r)

			tc.want.check(t, w)
			if read != tc.read {
				t.Errorf("got %d bytes of the body read, want %d", read, tc.read)
			}
			if !reflect.DeepEqual(*r, before) {
				t.Errorf("the original request was changed: got %+v\nwant %+v", *r, before)
			}
			if len(errs) != 1 {
				t.Fatalf("got errors %q, want one", errs)
			}
			err, limited, syntax := errs[0], new(http.MaxBytesError), new(json.SyntaxError)
			if tc.want == tooLarge {
				if !errors.As(err, &limited) || limited.Limit != cmp.Or(tc.smaller, limit) {
					t.Errorf("got %v, want an *http.MaxBytesError with the limit that was exceeded", err)
				}
			} else if !errors.Is(err, tc.want.err) {
				t.Errorf("got %v, want %v", err, tc.want.err)
			}
			if tc.want == notJSON && !errors.As(err, &syntax) {
				t.Errorf("got %v, want it to wrap a *json.SyntaxError", err)
			}
			text := err.Error()
			if !strings.HasPrefix(text, "hmacverify: ") || !strings.Contains(text, tc.detail) ||
				strings.Contains(text, sig) || len(text) > 150 {
				t.Errorf("got %q, want a short text with %q and without a signature", text, tc.detail)
			}
			want := []string{"WARN rejected err=" + text + " from=192.0.2.1:1234"}
			if records, _ := logged.take(); !slices.Equal(records, want) {
				t.Errorf("got log %q, want %q", records, want)
			}
		})
	}
}

// DefaultErrorHandler responds and logs if ErrorHandler is nil. It takes any
// error.
func TestDefaultErrorHandler(t *testing.T) {
	type key struct{}
	logged.take()
	r := post([]byte("{}"), "")
	w, _ := serve(newReceiver(t, secret), r.WithContext(context.WithValue(r.Context(), key{}, "value")))
	missing.check(t, w)
	records, ctxs := logged.take()
	want := []string{"WARN rejected err=hmacverify: missing signature from=192.0.2.1:1234"}
	if !slices.Equal(records, want) || ctxs[0].Value(key{}) != "value" {
		t.Errorf("got log %q, want %q with the request's context", records, want)
	}
	for err, want := range map[error]outcome{
		nil:                               unreadable,
		errors.New("secret is " + secret): unreadable,
		fmt.Errorf("wrapped: %w", hmacverify.ErrEmptySecret):     noSecret,
		fmt.Errorf("wrapped: %w", &http.MaxBytesError{Limit: 1}): tooLarge,
	} {
		w := httptest.NewRecorder()
		hmacverify.DefaultErrorHandler(w, httptest.NewRequest("POST", "/", nil), err)
		want.check(t, w)
	}
}

func TestLongBodiesAreRejected(t *testing.T) {
	for _, tc := range []struct{ limit, length, want int64 }{
		{10, 10, 200},
		{10, 11, 413},
		{1<<63 - 1, 3000, 200},
		{0, 1 << 20, 200},
		{0, 1<<20 + 1, 413},
		{-1, 1 << 20, 200},
		{2 << 20, 1<<20 + 1, 200},
	} {
		t.Run(fmt.Sprintf("limit %d, length %d", tc.limit, tc.length), func(t *testing.T) {
			rc := newReceiver(t, secret)
			rc.MaxBodyBytes = tc.limit
			body := `"` + strings.Repeat("x", int(tc.length)-2) + `"`
			if w, _ := serve(rc, signed(body)); w.Code != int(tc.want) {
				t.Errorf("got %d, want %d", w.Code, tc.want)
			}
		})
	}
}

func TestHandlerPassesTheRequestOn(t *testing.T) {
	type key struct{}
	const body = `{"status":"rated"}`
	r := signed(body)
	r.ContentLength, r.TransferEncoding = 1, []string{"chunked"} // as after decompressing middleware
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Guuru-Event", "chat-rated")
	ctx, cancel := context.WithCancel(context.WithValue(r.Context(), key{}, "value"))
	r = r.WithContext(ctx)
	before, header := *r, maps.Clone(r.Header)

	var got *http.Request
	recorder := httptest.NewRecorder()
	newReceiver(t, secret).Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		if w != recorder {
			t.Errorf("got %T, want the ResponseWriter of the server, which may have more methods", w)
		}
	})).ServeHTTP(recorder, r)
	if got == nil || got == r {
		t.Fatalf("got request %p, want a copy of %p", got, r)
	}
	if !reflect.DeepEqual(*r, before) || !reflect.DeepEqual(r.Header, header) {
		t.Errorf("the original request was changed: got %+v\nwant %+v", *r, before)
	}
	if got.Context().Value(key{}) != "value" {
		t.Error("the context's values are lost")
	}
	if cancel(); got.Context().Err() == nil {
		t.Error("the context is not canceled with that of the original request")
	}
	if got.ContentLength != int64(len(body)) || got.TransferEncoding != nil {
		t.Errorf("got ContentLength %d, TransferEncoding %q; want %d and none", got.ContentLength, got.TransferEncoding, len(body))
	}
	if methods := reflect.TypeOf(got.Body).NumMethod(); methods != 2 {
		t.Errorf("got a body with %d methods, want Read and Close", methods)
	}
	if text, err := io.ReadAll(got.Body); string(text) != body || err != nil || got.Body.Close() != nil {
		t.Errorf("got body %q, %v; want %q, nil", text, err, body)
	}
	got = got.WithContext(r.Context())
	got.Body, got.ContentLength, got.TransferEncoding = r.Body, r.ContentLength, r.TransferEncoding
	if !reflect.DeepEqual(got, r) {
		t.Errorf("got %+v\nwant %+v, apart from context, body and length", got, r)
	}
}

// A request that did not come from a server may have a nil Body.
func TestRequestNotMadeByServer(t *testing.T) {
	r := post(nil, reference(secret, nil))
	r.Body = nil
	w, _ := serve(newReceiver(t, secret), r)
	notJSON.check(t, w) // an empty body
	if p, err := hmacverify.PayloadFrom(r.Context()); p != nil || !errors.Is(err, hmacverify.ErrNoPayload) {
		t.Errorf("got %v, %v; want nil, %v", p, err, hmacverify.ErrNoPayload)
	}
}

// JSON of any structure is accepted.
func TestPayloadOfAnyStructure(t *testing.T) {
	for _, tc := range []struct {
		body    string
		want    hmacverify.Payload
		typeErr bool
	}{
		{`{}`, hmacverify.Payload{}, false},
		{` {"status" : "rated"} `, hmacverify.Payload{Status: "rated"}, false},
		{`null`, hmacverify.Payload{}, false},
		{`{"id":"1","user":{"isLead":true,"isUser":true,"email":"a@b","age":7},"new":[{}],"status":null}`,
			hmacverify.Payload{ID: "1", User: hmacverify.User{IsLead: true, IsUser: true, Email: "a@b"}}, false},
		{"{\"status\":\"\xff\"}", hmacverify.Payload{Status: "\ufffd"}, false},
		{`{"rating":"good","status":"rated"}`, hmacverify.Payload{Status: "rated"}, true},
		{`{"user":"joao","status":"rated","ratedAt":"today","language":"en"}`,
			hmacverify.Payload{Status: "rated", Language: "en"}, true},
		{`{"user":{"name":7,"locale":"en"},"rating":1}`,
			hmacverify.Payload{User: hmacverify.User{Locale: "en"}, Rating: 1}, true},
		{`{"RATING":2,"rating":1,"Status":"rated"}`, hmacverify.Payload{Rating: 1, Status: "rated"}, false},
		{`{"createdAt":1.5e12,"rating":4.0,"status":"rated"}`, hmacverify.Payload{Status: "rated"}, true},
		{`{"createdAt":1.5e400,"rating":1}`, hmacverify.Payload{Rating: 1}, true},
		{`{"rating":99999999999999999999,"closedAt":1}`, hmacverify.Payload{ClosedAt: 1}, true},
		{`[]`, hmacverify.Payload{}, true},
		{`"rated"`, hmacverify.Payload{}, true},
		{`1`, hmacverify.Payload{}, true},
	} {
		t.Run(tc.body, func(t *testing.T) {
			p, err := hmacverify.ParsePayload([]byte(tc.body))
			if p == nil || *p != tc.want {
				t.Errorf("got payload %+v, want %+v", p, tc.want)
			}
			var typeErr *json.UnmarshalTypeError
			if errors.As(err, &typeErr) != tc.typeErr || (err != nil) != tc.typeErr || errors.Is(err, hmacverify.ErrMalformedPayload) {
				t.Errorf("got error %v, want a *json.UnmarshalTypeError: %t", err, tc.typeErr)
			}
			w, r := serve(newReceiver(t, secret), signed(tc.body))
			if r == nil {
				t.Fatalf("rejected with %d %q", w.Code, w.Body)
			}
			passed, passedErr := hmacverify.PayloadFrom(r.Context())
			if !reflect.DeepEqual(passed, p) || fmt.Sprint(passedErr) != fmt.Sprint(err) {
				t.Errorf("got %+v, %v from the context; want %+v, %v", passed, passedErr, p, err)
			}
			if again, _ := hmacverify.PayloadFrom(r.Context()); again != passed {
				t.Error("got another pointer the second time")
			}
			if body, err := io.ReadAll(r.Body); string(body) != tc.body || err != nil {
				t.Errorf("got body %q, %v; want %q, nil", body, err, tc.body)
			}
		})
	}
}

func TestMalformedPayload(t *testing.T) {
	for _, body := range []string{
		``, ` `, `{`, `{"status":"rated"`, `{} {}`, `{"status":rated}`, `{'status':'rated'}`, "\ufeff{}", `nul`,
		`status=rated`, `{"rating":"of another type","status":}`,
		strings.Repeat("[", 10_001) + strings.Repeat("]", 10_001), // deeper than encoding/json supports
	} {
		t.Run(fmt.Sprintf("%.20s", body), func(t *testing.T) {
			p, err := hmacverify.ParsePayload([]byte(body))
			var syntax *json.SyntaxError
			if p != nil || !errors.Is(err, hmacverify.ErrMalformedPayload) || !errors.As(err, &syntax) {
				t.Errorf("got %v, %v; want nil, %v", p, err, hmacverify.ErrMalformedPayload)
			}
			w, _ := serve(newReceiver(t, secret), signed(body))
			notJSON.check(t, w)
		})
	}
}

func TestPayloadJSONOmitsZeroFields(t *testing.T) {
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
		if got.Format(time.RFC3339Nano) != want || got.IsZero() != (millis == 0) || got.Location() != time.UTC {
			t.Errorf("%d: got %v, IsZero %t; want %s", millis, got, got.IsZero(), want)
		}
	}
}

func TestReceiverShowsNoSecret(t *testing.T) {
	const secret = "do not show this"
	rc := newReceiver(t, secret, secret)
	for _, shown := range []string{fmt.Sprintf("%v %+v %#v", rc, rc, rc), fmt.Sprintf("%v %+v %#v", *rc, *rc, *rc)} {
		for _, leak := range []string{secret, fmt.Sprintf("%x", secret), fmt.Sprint([]byte(secret))} {
			if strings.Contains(shown, leak) {
				t.Errorf("the secret is shown in %s", shown)
			}
		}
	}
}

// Two goroutines never use one HMAC at a time. The bodies are so long that a
// single processor switches between the goroutines while they are hashed.
func TestConcurrentVerify(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	rc := newReceiver(t, secret)
	var wg sync.WaitGroup
	for g := range 4 {
		body := bytes.Repeat([]byte{byte(g)}, 20<<20)
		sig := reference(secret, body)
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 3 {
				if err := rc.Verify(body, sig); err != nil {
					t.Errorf("body %d: got %v, want nil", g, err)
				}
			}
		}()
	}
	wg.Wait()
}

// Concurrent deliveries do not get each other's payload or body. Handlers of a
// Receiver can also be nested.
func TestConcurrentDeliveries(t *testing.T) {
	secrets := []string{"new secret", "old secret"}
	rc := newReceiver(t, secrets...)
	handler := rc.Handler(rc.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, err := hmacverify.PayloadFrom(r.Context())
		body, readErr := io.ReadAll(r.Body)
		if err != nil || readErr != nil || string(body) != fmt.Sprintf(`{"id":%q}`, p.ID) {
			t.Errorf("got body %s, %v with payload %+v, %v", body, readErr, p, err)
		}
		io.WriteString(w, p.ID)
	})))
	var wg sync.WaitGroup
	for g := range 64 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range 50 {
				id := fmt.Sprintf("%d-%d", g, i)
				body := fmt.Appendf(nil, `{"id":%q}`, id)
				w := httptest.NewRecorder()
				handler.ServeHTTP(w, post(body, reference(secrets[(g+i)%2], body)))
				if w.Code != 200 || w.Body.String() != id {
					t.Errorf("%s: got %d %q, want 200 and the id", id, w.Code, w.Body)
				}
				if err := rc.Verify(body, reference("another", body)); !errors.Is(err, hmacverify.ErrSignatureMismatch) {
					t.Errorf("%s: Verify, forged: got %v, want %v", id, err, hmacverify.ErrSignatureMismatch)
				}
			}
		}()
	}
	wg.Wait()
}

// Raw requests whose outcome depends on this package, not only on net/http.
func TestRawRequests(t *testing.T) {
	ex := examples(t)[0]
	const limit = 1000
	rc := newReceiver(t, secret)
	rc.MaxBodyBytes = limit
	server := httptest.NewServer(rc.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "Success!")
	})))
	defer server.Close()

	const chunked = "Transfer-Encoding: chunked\r\n\r\n"
	length := func(n int) string { return fmt.Sprintf("Content-Length: %d\r\n\r\n", n) }
	chunk := func(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }
	var (
		long    = strings.Repeat(" ", limit-1) + "{}" // one byte too many
		body    = string(ex.body)
		whole   = length(len(body)) + body
		sig     = "X-Guuru-Hmac-Sha256: " + ex.sig + "\r\n"
		lower   = "x-guuru-hmac-sha256: " + ex.sig + "\r\n"
		spaces  = "X-Guuru-Hmac-Sha256:\t " + ex.sig + " \t\r\n" // RFC 9110, section 5.5
		longSig = "X-Guuru-Hmac-Sha256: " + reference(secret, []byte(long)) + "\r\n"
		success = outcome{status: 200, text: "Success!"}
	)
	for _, tc := range []struct {
		name, request string // without its first two lines
		want          outcome
	}{
		{"length", sig + whole, success},
		{"chunks", sig + chunked + chunk(body[:1]) + chunk(body[1:200]) + chunk(body[200:]) + "0\r\n\r\n", success},
		{"name in lowercase", lower + whole, success},
		{"whitespace around the value", spaces + whole, success},
		{"signature in a trailer", "Trailer: X-Guuru-Hmac-Sha256\r\n" + chunked + chunk(body) + "0\r\n" + sig + "\r\n", missing},
		{"two signatures in two spellings", sig + lower + whole, malformed},
		{"truncated", sig + length(len(body)) + body[:100], unreadable},
		{"truncated, but what arrived is signed", sig + length(len(body)+1) + body, unreadable},
		{"one byte more than announced", sig + length(len(body)-1) + body, mismatch},
		{"truncated in a chunk", sig + chunked + chunk(body)[:100], unreadable},
		{"truncated before the last chunk", sig + chunked + chunk(body), unreadable},
		{"bad chunk after the body", sig + chunked + chunk(body) + "x\r\n", unreadable},
		{"too large, announced", longSig + length(len(long)) + long, tooLarge},
		{"too large, in chunks", longSig + chunked + chunk(long) + "0\r\n\r\n", tooLarge},
	} {
		t.Run(tc.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			io.WriteString(conn, "POST / HTTP/1.1\r\nHost: example.com\r\n"+tc.request)
			conn.(*net.TCPConn).CloseWrite() // the client is done and still reads
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatalf("no response: %v", err)
			}
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			if resp.StatusCode != tc.want.status || string(text) != tc.want.text || err != nil {
				t.Errorf("got %d %q, %v; want %d %q", resp.StatusCode, text, err, tc.want.status, tc.want.text)
			}
			if tc.want == tooLarge && !resp.Close {
				t.Error("the rest of a body that is too large would be read: got no Connection: close")
			}
		})
	}
}

// A large Content-Length with a body of one byte does not cost much memory.
func TestMemoryFollowsArrivedBytes(t *testing.T) {
	rc := newReceiver(t, secret)
	rc.MaxBodyBytes = 1 << 40
	r := post([]byte("{"), reference(secret, nil))
	r.ContentLength = 1 << 30
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	w, _ := serve(rc, r)
	runtime.ReadMemStats(&after)
	mismatch.check(t, w)
	if got := after.TotalAlloc - before.TotalAlloc; got > 64<<10 {
		t.Errorf("got %d bytes allocated for one byte of body, want at most 64 KiB", got)
	}
}

// FuzzHandler checks that a request is accepted exactly when the reference
// accepts it, and that its body and payload are then passed on.
func FuzzHandler(f *testing.F) {
	for _, ex := range examples(f) {
		f.Add("POST", ex.body, ex.sig, uint8(1), false)
		f.Add("POST", ex.body, ex.sig, uint8(2), false)
		f.Add("POST", ex.body, ex.sig, uint8(1), true)
		f.Add("POST", ex.body, "", uint8(0), false)
		f.Add("GET", ex.body, ex.sig, uint8(1), false)
	}
	f.Add("POST", []byte("{"), "", uint8(1), true)
	f.Add("POST", []byte(`[{"rating":"x"}]`), "", uint8(1), true)
	rc := newReceiver(f, "another secret", secret)
	rc.MaxBodyBytes = 500
	f.Fuzz(func(t *testing.T, method string, body []byte, sig string, copies uint8, sign bool) {
		valid := reference(secret, body)
		if sign { // the fuzzer cannot sign the bodies it finds
			sig = valid
		}
		accept := method == "POST" && copies%3 == 1 && sig == valid && len(body) <= 500 && json.Valid(body)

		r := httptest.NewRequest("POST", "/", bytes.NewReader(body))
		r.Method = method
		for range copies % 3 {
			r.Header.Add("X-Guuru-Hmac-Sha256", sig)
		}
		logged.take()
		w, passed := serve(rc, r)
		records, _ := logged.take()
		if (passed != nil) != accept || (w.Code == 200) != accept {
			t.Errorf("%s %q with %d signatures %q: got %d, want accepted: %t", method, body, copies%3, sig, w.Code, accept)
		}
		if passed == nil {
			shown := fmt.Sprint(w.Body, records)
			if w.Code < 400 || len(records) != 1 || strings.Contains(shown, valid) || strings.Contains(shown, secret) {
				t.Errorf("got response %d %q, log %q; want neither signature nor secret", w.Code, w.Body, records)
			}
			return
		}
		if got, err := io.ReadAll(passed.Body); !bytes.Equal(got, body) || err != nil {
			t.Errorf("got body %q, %v; want %q, nil", got, err, body)
		}
		var want hmacverify.Payload
		wantErr := json.Unmarshal(body, &want)
		if p, err := hmacverify.PayloadFrom(passed.Context()); p == nil || *p != want || (err == nil) != (wantErr == nil) {
			t.Errorf("got payload %+v, %v; want %+v, %v", p, err, want, wantErr)
		}
	})
}

// BenchmarkHandler compares ways to handle a request, without a server. The
// baseline reads, hashes, and decodes the body. "inline" reads it, checks it as
// Guuru's Go sample does, and decodes it.
func BenchmarkHandler(b *testing.B) {
	for _, bm := range []struct {
		name    string
		handler http.Handler
	}{
		{"baseline", unprotected(b, hash)},
		{"inline", unprotected(b, inline)},
		{"Receiver.Handler", protected(b)},
	} {
		b.Run(bm.name, func(b *testing.B) {
			run := request(b, bm.handler)
			b.ReportAllocs()
			for b.Loop() {
				run()
			}
		})
	}
}

func TestHandlerAllocations(t *testing.T) {
	skipAllocations(t)
	got := testing.AllocsPerRun(100, request(t, protected(t)))
	if most := testing.AllocsPerRun(100, request(t, unprotected(t, hash))) + 4; got > most {
		t.Errorf("got %v allocations for one request, want at most %v, 4 more than the baseline", got, most)
	}
}

// The handlers store results so that the compiler cannot drop the work.
var (
	digest  [sha256.Size]byte
	payload *hmacverify.Payload
)

func hash(body []byte, r *http.Request) bool {
	digest = sha256.Sum256(body)
	return true
}

func inline(body []byte, r *http.Request) bool {
	return hmac.Equal([]byte(reference(secret, body)), []byte(r.Header.Get("X-Guuru-Hmac-Sha256")))
}

func unprotected(tb testing.TB, check func([]byte, *http.Request) bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || !check(body, r) {
			tb.Fatal("rejected", err)
		}
		p := new(hmacverify.Payload)
		if err := json.Unmarshal(body, p); err != nil {
			tb.Fatal(err)
		}
		payload = p
	})
}

func protected(tb testing.TB) http.Handler {
	return newReceiver(tb, secret).Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, err := hmacverify.PayloadFrom(r.Context())
		if err != nil {
			tb.Fatal(err)
		}
		payload = p
	}))
}

// request returns a function that passes a documented request to handler. The
// function itself does not allocate.
func request(tb testing.TB, handler http.Handler) func() {
	ex := examples(tb)[0]
	body := bytes.NewReader(ex.body)
	r := post(nil, ex.sig)
	r.Body, r.ContentLength = io.NopCloser(body), int64(len(ex.body))
	w := httptest.NewRecorder()
	return func() {
		body.Reset(ex.body)
		payload = nil
		handler.ServeHTTP(w, r)
		if payload == nil {
			tb.Fatalf("no payload: %d %s", w.Code, w.Body)
		}
	}
}
