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
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"example.com/hmacverify"
)

// A handler that acts on one event and ignores the others. If it cannot act, it
// responds with 500 and logs enough to find the delivery.
func ExamplePayloadFrom() {
	logger := newLogger(os.Stdout) // slog.Default() in a service
	deliver := func(w http.ResponseWriter, r *http.Request) {
		switch event := r.Header.Get(hmacverify.EventHeader); event {
		case hmacverify.EventChatRated:
			p, err := hmacverify.PayloadFrom(r.Context())
			if err != nil {
				logger.Error("payload not decoded", "event", event, "err", err,
					"signature", r.Header.Get(hmacverify.SignatureHeader))
				http.Error(w, "payload not decoded", http.StatusInternalServerError)
				return
			}
			logger.Info(event, "user", p.User.Name, "rating", p.Rating, "at", p.RatedAt.Time())
		default:
			logger.Info("ignored", "event", event)
		}
		io.WriteString(w, "Success!")
	}

	rc, err := hmacverify.New("secr3t")
	if err != nil {
		log.Fatal(err)
	}
	handler := rc.Handler(http.HandlerFunc(deliver)) // the ErrorHandler example logs rejections
	for _, delivery := range []struct{ event, body string }{
		{"chat-rated", `{"user":{"name":"João"},"rating":1,"ratedAt":1551456472882}`},
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
	// level=INFO msg=chat-rated user=João rating=1 at=2019-03-01T16:07:52.882Z
	// 200
	// level=ERROR msg="payload not decoded" event=chat-rated err="hmacverify: unexpected payload structure: json: cannot unmarshal string into Go struct field Payload.rating of type int" signature=2b519c6e0a52236e71566a61705c12bef8d9d1c36398a712a7c5058b901e7430
	// 500
	// level=INFO msg=ignored event=message-created
	// 200
}

// newLogger returns a logger that omits the time.
func newLogger(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))
}

// An ErrorHandler that logs the error and responds as usual.
func ExampleReceiver_errorHandler() {
	logger := newLogger(os.Stdout) // slog.Default() in a service
	rc, err := hmacverify.New("secr3t")
	if err != nil {
		log.Fatal(err)
	}
	rc.ErrorHandler = func(w http.ResponseWriter, r *http.Request, err error) {
		logger.Warn("rejected", "from", r.RemoteAddr, "err", err)
		hmacverify.DefaultErrorHandler(w, r, err)
	}
	mux := http.NewServeMux()
	mux.Handle("/guuru", rc.Handler(http.NotFoundHandler()))

	r := httptest.NewRequest("POST", "/guuru", strings.NewReader("{}"))
	r.Header.Set(hmacverify.SignatureHeader, hmacverify.Sign("another secret", []byte("{}")))
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	fmt.Println(w.Code, w.Body)
	// Output:
	// level=WARN msg=rejected from=192.0.2.1:1234 err="hmacverify: signature mismatch: read 2 bytes of body"
	// 400 Invalid request, non-matching HMAC-SHA256 received
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
			if body, err = base64.StdEncoding.DecodeString(e.Body); err != nil {
				return nil, err
			}
		}
		header := make(http.Header)
		for name, value := range e.Headers {
			header.Add(name, value) // in canonical case
		}
		// Several signatures, joined, are malformed.
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

// wantPayloads are the contents of the documented bodies, transcribed by hand.
var wantPayloads = []hmacverify.Payload{{
	User:     hmacverify.User{Name: "joao", Locale: "en"},
	Question: "My router lights are all yellow and blinking and I can't connect to the Internet from my laptop, what can I do?",
	Status:   "rated", Language: "en", TranscriptURL: "https://chat.guuru.com/guuru-qa/transcripts/-LZu0Bo-008GtlT9A5Oj", Rating: 1, Category: "general",
	CreatedAt: 1551456587480, AcceptedAt: 1551456623552, ClosedAt: 1551456680711, RatedAt: 1551456684623,
}, {
	User:     hmacverify.User{Name: "João", Locale: "en"},
	Question: "Is shipping free for Portugal?",
	Status:   "rated", Language: "en", TranscriptURL: "https://chat.guuru.com/guuru-qa/transcripts/-LZu-ZrIBzpNHGswVFuP", Rating: 1, Category: "general",
	CreatedAt: 1551456423860, AcceptedAt: 1551456435840, ClosedAt: 1551456470489, RatedAt: 1551456472882,
}, {
	User:     hmacverify.User{Name: "joao", Locale: "en"},
	Question: "hello 123",
	Status:   "rated", Language: "en", TranscriptURL: "https://chat.guuru.com/guuru-qa/transcripts/-LZu--MHQ3xLy1RvHqv4", Rating: 1, Category: "general",
	CreatedAt: 1551456274349, AcceptedAt: 1551456289259, ClosedAt: 1551456338034, RatedAt: 1551456341040,
}}

func TestDocumentedRequests(t *testing.T) {
	for i, ex := range examples(t) {
		w, r := serve(newReceiver(t, secret), post(ex.body, ex.sig))
		if w.Code != 200 || w.Body.String() != "Success!" || r == nil {
			t.Fatalf("%s: got %d %q, want 200 %q", ex.name, w.Code, w.Body, "Success!")
		}
		if p, err := hmacverify.PayloadFrom(r.Context()); err != nil || *p != wantPayloads[i] {
			t.Errorf("%s: got payload %+v, %v\nwant %+v, nil", ex.name, p, err, wantPayloads[i])
		}
		if body, err := io.ReadAll(r.Body); err != nil || !bytes.Equal(body, ex.body) {
			t.Errorf("%s: got body %q, %v\nwant %q, nil", ex.name, body, err, ex.body)
		}
	}
}

// Headers, events, and errors are spelled as documented.
func TestNamesAreAsDocumented(t *testing.T) {
	got := fmt.Sprint(hmacverify.SignatureHeader, " ", hmacverify.EventHeader, " ", hmacverify.IdempotencyKeyHeader,
		" ", hmacverify.EventChatAssigned, " ", hmacverify.EventChatOpened, " ", hmacverify.EventChatClosed,
		" ", hmacverify.EventChatReopened, " ", hmacverify.EventChatTransferred, " ", hmacverify.EventChatRated,
		" ", hmacverify.EventMessageCreated, " ", hmacverify.ErrMethodNotAllowed,
		" ", hmacverify.ErrMalformedPayload, " ", hmacverify.ErrNoPayload)
	want := "X-Guuru-Hmac-Sha256 X-Guuru-Event Idempotency-Key" +
		" chat-assigned chat-opened chat-closed chat-reopened chat-transferred chat-rated message-created" +
		" hmacverify: method not allowed hmacverify: malformed payload hmacverify: no payload in context"
	if got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func TestNewRejectsUnusableSecrets(t *testing.T) {
	for _, tc := range []struct {
		secrets []string
		want    string // "<nil>" if they are accepted
	}{
		{[]string{secret}, "<nil>"},
		{[]string{" "}, "<nil>"},
		{[]string{"\nsecr3t\r\n "}, "<nil>"},
		{nil, "hmacverify: empty secret"},
		{[]string{""}, "hmacverify: empty secret (1 of 1)"},
		{[]string{secret, ""}, "hmacverify: empty secret (2 of 2)"},
		{[]string{secret + "\n"}, "hmacverify: secret 1 of 1 ends in a line break"},
		{[]string{secret + "\n", ""}, "hmacverify: empty secret (2 of 2)"},
		{[]string{"a", "b", secret + "\r\n"}, "hmacverify: secret 3 of 3 ends in a line break"},
		{[]string{secret + "\r"}, "hmacverify: secret 1 of 1 ends in a line break"},
	} {
		rc, err := hmacverify.New(tc.secrets...)
		isEmpty := strings.Contains(tc.want, "empty")
		if fmt.Sprint(err) != tc.want || (rc == nil) != (err != nil) || errors.Is(err, hmacverify.ErrEmptySecret) != isEmpty {
			t.Errorf("New(%q): got %v, %v; want error %s", tc.secrets, rc, err, tc.want)
		}
	}
}

func TestAnySecretIsAccepted(t *testing.T) {
	rc := newReceiver(t, "new", "old", "older")
	for signedWith, want := range map[string]error{
		"new": nil, "old": nil, "older": nil, "newold": hmacverify.ErrSignatureMismatch,
	} {
		if err := rc.Verify(nil, reference(signedWith, nil)); !errors.Is(err, want) {
			t.Errorf("signed with %q: got %v, want %v", signedWith, err, want)
		}
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
	for _, tc := range []struct {
		name      string
		zero      bool // use the zero Receiver
		method    string
		sigs      []string
		body      string
		end       error  // after the body; io.EOF if nil
		announced string // Content-Length, if any
		want      outcome
		detail    string // in the error's text
		read      int    // bytes of the body
	}{
		{name: "no secret", zero: true, method: "POST", sigs: []string{reference("", []byte(body))}, body: body, want: noSecret},
		{name: "no secret, GET, unsigned", zero: true, method: "GET", body: body, want: noSecret},

		{name: "PUT", method: "PUT", sigs: []string{sig}, body: body, want: notAllowed},
		{name: "PATCH", method: "PATCH", sigs: []string{sig}, body: body, want: notAllowed},
		{name: "lowercase post", method: "post", sigs: []string{sig}, body: body, want: notAllowed},
		{name: "GET, unsigned", method: "GET", body: body, want: notAllowed},

		{name: "unsigned", method: "POST", body: body, want: missing},
		{name: "empty signature", method: "POST", sigs: []string{""}, body: body, want: missing},
		{name: "leading space", method: "POST", sigs: []string{" " + sig}, body: body, want: malformed, detail: "length 65, want 64"},
		{name: "uppercase", method: "POST", sigs: []string{strings.ToUpper(sig)}, body: body, want: malformed, detail: "uppercase"},
		{name: "two equal signatures", method: "POST", sigs: []string{sig, sig}, body: body, want: malformed, detail: "2 headers, want 1"},
		{name: "valid signature first", method: "POST", sigs: []string{sig, forged, forged}, body: body, want: malformed, detail: "3 headers, want 1"},
		{name: "valid signature last", method: "POST", sigs: []string{"", sig}, body: body, want: malformed, detail: "2 headers, want 1"},

		{name: "too large", method: "POST", sigs: []string{reference(secret, []byte(long))}, body: long, want: tooLarge, detail: "MaxBodyBytes 64: ", read: limit + 1},
		{name: "too large and forged", method: "POST", sigs: []string{forged}, body: long, want: tooLarge, read: limit + 1},
		{name: "truncated", method: "POST", sigs: []string{sig}, body: body, end: io.ErrUnexpectedEOF, want: unreadable, read: 18},

		{name: "forged", method: "POST", sigs: []string{forged}, body: body, want: mismatch, detail: "read 18 bytes of body", read: 18},
		{name: "forged and not JSON", method: "POST", sigs: []string{forged}, body: body + "}", want: mismatch, read: 19},
		{name: "body consumed earlier", method: "POST", sigs: []string{sig}, announced: "18", want: mismatch, detail: "read 0 bytes of body, Content-Length 18"},
		{name: "body replaced earlier", method: "POST", sigs: []string{sig}, body: body + "\n", announced: "0", want: mismatch, detail: "read 19 bytes of body, Content-Length 0", read: 19},
		{name: "not JSON", method: "POST", sigs: []string{reference(secret, []byte(body+"}"))}, body: body + "}", want: notJSON, read: 19},
	} {
		t.Run(tc.name, func(t *testing.T) {
			end := iotest.ErrReader(cmp.Or(tc.end, io.EOF))
			source := &source{Reader: io.MultiReader(strings.NewReader(tc.body), end)}
			r := httptest.NewRequest(tc.method, "/", source)
			if tc.announced != "" {
				fmt.Sscan(tc.announced, &r.ContentLength)
			}
			if tc.sigs != nil {
				r.Header["X-Guuru-Hmac-Sha256"] = tc.sigs
			}
			rc := new(hmacverify.Receiver)
			if !tc.zero {
				rc = newReceiver(t, secret)
			}
			rc.MaxBodyBytes = limit
			var errs []error
			rc.ErrorHandler = func(w http.ResponseWriter, got *http.Request, err error) {
				if got != r {
					t.Error("ErrorHandler did not receive the original request")
				}
				errs = append(errs, err)
				hmacverify.DefaultErrorHandler(w, got, err)
			}

			w, passed := serve(rc, r)
			if passed != nil {
				t.Error("the request reached the next handler")
			}
			tc.want.check(t, w)
			if source.n != tc.read {
				t.Errorf("got %d bytes of the body read, want %d", source.n, tc.read)
			}
			if len(errs) != 1 {
				t.Fatalf("got errors %q, want one", errs)
			}
			err, limited, syntax := errs[0], new(http.MaxBytesError), new(json.SyntaxError)
			if tc.want == tooLarge {
				if !errors.As(err, &limited) || limited.Limit != limit {
					t.Errorf("got %v, want an *http.MaxBytesError with limit %d", err, limit)
				}
			} else if !errors.Is(err, tc.want.err) {
				t.Errorf("got %v, want %v", err, tc.want.err)
			}
			if tc.want == notJSON && !errors.As(err, &syntax) {
				t.Errorf("got %v, want it to wrap a *json.SyntaxError", err)
			}
			text := err.Error()
			if !strings.HasPrefix(text, "hmacverify: ") || !strings.Contains(text, tc.detail) ||
				strings.Contains(text, "Content-Length") != (tc.announced != "") || strings.Contains(text, sig) {
				t.Errorf("got %q, want it to contain %q and no signature", text, tc.detail)
			}
		})
	}
}

// DefaultErrorHandler responds if ErrorHandler is nil, and takes any error.
func TestDefaultErrorHandler(t *testing.T) {
	w, _ := serve(newReceiver(t, secret), post([]byte("{}"), ""))
	missing.check(t, w)
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
		rc := newReceiver(t, secret)
		rc.MaxBodyBytes = tc.limit
		body := `"` + strings.Repeat("x", int(tc.length)-2) + `"`
		if w, _ := serve(rc, signed(body)); w.Code != int(tc.want) {
			t.Errorf("limit %d, body of %d bytes: got %d, want %d", tc.limit, tc.length, w.Code, tc.want)
		}
	}
}

func TestHandlerPassesTheRequestOn(t *testing.T) {
	type key struct{}
	const body = `{"status":"rated"}`
	r := signed(body)
	r.ContentLength, r.TransferEncoding = 1, []string{"chunked"} // as after decompressing middleware
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Guuru-Event", "chat-rated")
	r = r.WithContext(context.WithValue(r.Context(), key{}, "value"))
	before, header := *r, maps.Clone(r.Header)

	_, got := serve(newReceiver(t, secret), r)
	if got == nil || got == r {
		t.Fatalf("got request %p, want a copy of %p", got, r)
	}
	if !reflect.DeepEqual(*r, before) || !reflect.DeepEqual(r.Header, header) {
		t.Errorf("the original request was changed: got %+v\nwant %+v", *r, before)
	}
	if got.Context().Value(key{}) != "value" {
		t.Error("the context's values are lost")
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
	notJSON.check(t, w)
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
		{`{"user":"joao","status":"rated","ratedAt":"today","language":"en"}`, hmacverify.Payload{Status: "rated", Language: "en"}, true},
		{`{"user":{"name":7,"locale":"en"},"rating":1}`, hmacverify.Payload{User: hmacverify.User{Locale: "en"}, Rating: 1}, true},
		{`{"createdAt":1.5e400,"rating":1}`, hmacverify.Payload{Rating: 1}, true},
		{`{"rating":99999999999999999999,"closedAt":1}`, hmacverify.Payload{ClosedAt: 1}, true},
		{`[]`, hmacverify.Payload{}, true},
		{`"rated"`, hmacverify.Payload{}, true},
		{`1`, hmacverify.Payload{}, true},
	} {
		p, err := hmacverify.ParsePayload([]byte(tc.body))
		if p == nil || *p != tc.want {
			t.Errorf("%s: got payload %+v, want %+v", tc.body, p, tc.want)
		}
		var typeErr *json.UnmarshalTypeError
		if got := errors.As(err, &typeErr); got != tc.typeErr || (err != nil) != tc.typeErr || errors.Is(err, hmacverify.ErrMalformedPayload) {
			t.Errorf("%s: got error %v, want a *json.UnmarshalTypeError: %t", tc.body, err, tc.typeErr)
		}
		w, r := serve(newReceiver(t, secret), signed(tc.body))
		if r == nil {
			t.Errorf("%s: rejected with %d %q", tc.body, w.Code, w.Body)
			continue
		}
		passed, passedErr := hmacverify.PayloadFrom(r.Context())
		if !reflect.DeepEqual(passed, p) || fmt.Sprint(passedErr) != fmt.Sprint(err) {
			t.Errorf("%s: got %+v, %v from the context; want %+v, %v", tc.body, passed, passedErr, p, err)
		}
		if again, _ := hmacverify.PayloadFrom(r.Context()); again != passed {
			t.Errorf("%s: got another pointer the second time", tc.body)
		}
		if body, err := io.ReadAll(r.Body); string(body) != tc.body || err != nil {
			t.Errorf("got body %q, %v; want %q, nil", body, err, tc.body)
		}
	}
}

func TestMalformedPayload(t *testing.T) {
	for _, body := range []string{
		``, ` `, `{`, `{"status":"rated"`, `{} {}`, `{"status":rated}`, `{'status':'rated'}`, "\ufeff{}", `nul`, `status=rated`,
		`{"rating":"of another type","status":}`,
		strings.Repeat("[", 10_001) + strings.Repeat("]", 10_001), // deeper than encoding/json supports
	} {
		p, err := hmacverify.ParsePayload([]byte(body))
		var syntax *json.SyntaxError
		if p != nil || !errors.Is(err, hmacverify.ErrMalformedPayload) || !errors.As(err, &syntax) {
			t.Errorf("%.40s: got %v, %v; want nil, %v", body, p, err, hmacverify.ErrMalformedPayload)
		}
		w, _ := serve(newReceiver(t, secret), signed(body))
		notJSON.check(t, w)
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
	var log strings.Builder
	newLogger(&log).Info("receiver", "rc", rc, "copy", *rc)
	for _, shown := range []string{fmt.Sprintf("%v %+v %#v", rc, rc, rc), fmt.Sprintf("%v %+v %#v", *rc, *rc, *rc), log.String()} {
		if strings.Contains(shown, secret) || strings.Contains(shown, fmt.Sprintf("%x", secret)) || strings.Contains(shown, fmt.Sprint([]byte(secret))) {
			t.Errorf("the secret is shown in %s", shown)
		}
	}
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
	long := strings.Repeat(" ", limit-1) + "{}" // one byte too many
	var (
		body    = string(ex.body)
		sig     = "X-Guuru-Hmac-Sha256: " + ex.sig + "\r\n"
		lower   = "x-guuru-hmac-sha256: " + ex.sig + "\r\n"
		longSig = "X-Guuru-Hmac-Sha256: " + reference(secret, []byte(long)) + "\r\n"
		success = outcome{status: 200, text: "Success!"}
	)
	const chunked = "Transfer-Encoding: chunked\r\n\r\n"
	length := func(n int) string { return fmt.Sprintf("Content-Length: %d\r\n\r\n", n) }
	chunk := func(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }
	for _, tc := range []struct {
		name, request string // without its first two lines
		want          outcome
	}{
		{"length", sig + length(len(body)) + body, success},
		{"chunks", sig + chunked + chunk(body[:1]) + chunk(body[1:200]) + chunk(body[200:]) + "0\r\n\r\n", success},
		{"name in lowercase", lower + length(len(body)) + body, success},
		{"whitespace around the value", "X-Guuru-Hmac-Sha256:\t " + ex.sig + " \t\r\n" + length(len(body)) + body, success}, // RFC 9110, section 5.5
		{"signature in a trailer", "Trailer: X-Guuru-Hmac-Sha256\r\n" + chunked + chunk(body) + "0\r\n" + sig + "\r\n", missing},
		{"two signatures in two spellings", sig + lower + length(len(body)) + body, malformed},
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
			rc := newReceiver(t, secret)
			rc.MaxBodyBytes = limit
			server := httptest.NewServer(rc.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				io.WriteString(w, success.text)
			})))
			defer server.Close()

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
		w, passed := serve(rc, r)
		if (passed != nil) != accept || (w.Code == 200) != accept {
			t.Errorf("%s %q signed %d times with %q: got %d, want accepted: %t", method, body, copies%3, sig, w.Code, accept)
		}
		if passed == nil {
			if w.Code < 400 || strings.Contains(w.Body.String(), valid) || strings.Contains(w.Body.String(), secret) {
				t.Errorf("got response %d %q, want an error that shows neither signature nor secret", w.Code, w.Body)
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
	skipUnderRace(t)
	got := testing.AllocsPerRun(100, request(t, protected(t)))
	if most := testing.AllocsPerRun(100, request(t, unprotected(t, hash))) + 5; got > most {
		t.Errorf("got %v allocations for one request, want at most %v, 5 more than the baseline", got, most)
	}
}

// The handlers store results so that the compiler keeps the work.
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
