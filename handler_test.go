package hmacverify_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
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
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/hmacverify"
)

const mismatchText = "Invalid request, non-matching HMAC-SHA256 received"

func newReceiver(tb testing.TB, secrets ...string) *hmacverify.Receiver {
	tb.Helper()
	rc, err := hmacverify.New(secrets...)
	if err != nil {
		tb.Fatal(err)
	}
	return rc
}

// success is the handler behind, as the documented receivers answer.
var success = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	io.WriteString(w, "Success!")
})

// post returns a request as a server makes it from one signed with sig.
func post(body []byte, sig string) *http.Request {
	r := httptest.NewRequest("POST", "/", bytes.NewReader(body))
	r.Header.Set("X-Guuru-Hmac-Sha256", sig)
	return r
}

func signed(body string) *http.Request {
	return post([]byte(body), reference(secret, []byte(body)))
}

// wantPayloads are the documented bodies' contents, written down by hand.
var wantPayloads = []hmacverify.Payload{
	{
		User:          hmacverify.User{Name: "joao", Locale: "en"},
		Question:      "My router lights are all yellow and blinking and I can't connect to the Internet from my laptop, what can I do?",
		Status:        "rated",
		Language:      "en",
		TranscriptURL: "https://chat.guuru.com/guuru-qa/transcripts/-LZu0Bo-008GtlT9A5Oj",
		Rating:        1,
		Category:      "general",
		CreatedAt:     1551456587480,
		AcceptedAt:    1551456623552,
		ClosedAt:      1551456680711,
		RatedAt:       1551456684623,
	},
	{
		User:          hmacverify.User{Name: "João", Locale: "en"},
		Question:      "Is shipping free for Portugal?",
		Status:        "rated",
		Language:      "en",
		TranscriptURL: "https://chat.guuru.com/guuru-qa/transcripts/-LZu-ZrIBzpNHGswVFuP",
		Rating:        1,
		Category:      "general",
		CreatedAt:     1551456423860,
		AcceptedAt:    1551456435840,
		ClosedAt:      1551456470489,
		RatedAt:       1551456472882,
	},
	{
		User:          hmacverify.User{Name: "joao", Locale: "en"},
		Question:      "hello 123",
		Status:        "rated",
		Language:      "en",
		TranscriptURL: "https://chat.guuru.com/guuru-qa/transcripts/-LZu--MHQ3xLy1RvHqv4",
		Rating:        1,
		Category:      "general",
		CreatedAt:     1551456274349,
		AcceptedAt:    1551456289259,
		ClosedAt:      1551456338034,
		RatedAt:       1551456341040,
	},
}

func TestDocumentedRequests(t *testing.T) {
	passedOn := make(chan *http.Request, 1)
	rc := newReceiver(t, secret)
	server := httptest.NewServer(rc.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		passedOn <- r
		success(w, r)
	})))
	defer server.Close()
	for i, ex := range examples(t) {
		check := func(via string) {
			t.Helper()
			got := <-passedOn
			p, err := hmacverify.PayloadFrom(got.Context())
			if err != nil || *p != wantPayloads[i] {
				t.Errorf("%s %s: got payload %+v, %v\nwant %+v, nil", ex.name, via, p, err, wantPayloads[i])
			}
			if body, err := io.ReadAll(got.Body); err != nil || !bytes.Equal(body, ex.body) {
				t.Errorf("%s %s: got body %q, %v\nwant %q, nil", ex.name, via, body, err, ex.body)
			}
		}

		answer := httptest.NewRecorder()
		server.Config.Handler.ServeHTTP(answer, post(ex.body, ex.sig))
		if answer.Code != 200 || answer.Body.String() != "Success!" {
			t.Fatalf("%s: got %d %q, want 200 %q", ex.name, answer.Code, answer.Body, "Success!")
		}
		check("in process")

		r, err := http.NewRequest("POST", server.URL, bytes.NewReader(ex.body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("X-Guuru-Hmac-Sha256", ex.sig)
		r.Header.Set("X-Guuru-Event", "chat-rated")
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 200 || string(text) != "Success!" || err != nil {
			t.Fatalf("%s over TCP: got %d %q, %v; want 200 %q", ex.name, resp.StatusCode, text, err, "Success!")
		}
		check("over TCP")
	}
}

func TestNew(t *testing.T) {
	for _, secrets := range [][]string{nil, {""}, {"", secret}, {secret, ""}} {
		if rc, err := hmacverify.New(secrets...); rc != nil || !errors.Is(err, hmacverify.ErrEmptySecret) {
			t.Errorf("New(%q): got %v, %v; want nil, %v", secrets, rc, err, hmacverify.ErrEmptySecret)
		}
	}
}

func TestRotation(t *testing.T) {
	body := []byte("{}")
	rc := newReceiver(t, "new", "old", "older")
	for _, tc := range []struct {
		signedWith string
		want       error
	}{
		{"new", nil}, {"old", nil}, {"older", nil}, {"newold", hmacverify.ErrSignatureMismatch},
	} {
		sig := reference(tc.signedWith, body)
		if err := rc.Verify(body, sig); !errors.Is(err, tc.want) {
			t.Errorf("Verify, signed with %q: got %v, want %v", tc.signedWith, err, tc.want)
		}
		answer := httptest.NewRecorder()
		rc.Handler(success).ServeHTTP(answer, post(body, sig))
		if accepted := answer.Code == 200; accepted != (tc.want == nil) {
			t.Errorf("Handler, signed with %q: got %d, want accepted: %t", tc.signedWith, answer.Code, tc.want == nil)
		}
	}
}

// A service that went on without its receiver, or made one without New, is closed.
func TestReceiverWithoutSecretAcceptsNothing(t *testing.T) {
	for name, rc := range map[string]*hmacverify.Receiver{"zero": {}, "nil": nil} {
		for _, key := range []string{"", secret} {
			body := []byte("{}")
			sig := reference(key, body)
			if err := rc.Verify(body, sig); !errors.Is(err, hmacverify.ErrEmptySecret) {
				t.Errorf("%s receiver, Verify: got %v, want %v", name, err, hmacverify.ErrEmptySecret)
			}
			answer := httptest.NewRecorder()
			source := &countingReader{Reader: bytes.NewReader(body)}
			r := httptest.NewRequest("POST", "/", source)
			r.Header.Set("X-Guuru-Hmac-Sha256", sig)
			rc.Handler(success).ServeHTTP(answer, r)
			if answer.Code != 500 || source.n != 0 {
				t.Errorf("%s receiver, Handler: got %d and %d bytes read, want 500 and 0", name, answer.Code, source.n)
			}
		}
	}
}

// A countingReader counts what is read from it.
type countingReader struct {
	io.Reader
	n int
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += n
	return n, err
}

var errBrokenOff = errors.New("the body broke off")

func TestHandlerRefuses(t *testing.T) {
	const (
		body  = `{"status":"rated"}`
		limit = 64
	)
	sig := reference(secret, []byte(body))
	forged := strings.Repeat("0", 64)
	long := `"` + strings.Repeat("x", limit-1) + `"` // one byte too many
	notJSON := body + "}"
	text := func(s string) func() io.Reader {
		return func() io.Reader { return strings.NewReader(s) }
	}
	var (
		mismatch = answerTo{400, mismatchText, ""}
		notPOST  = answerTo{405, "Invalid request, method is not POST", "POST"}
		tooLarge = answerTo{413, "Invalid request, body is too large", ""}
		badJSON  = answerTo{400, "Invalid request, body is not JSON", ""}
		badBody  = answerTo{400, "Invalid request, unreadable body", ""}
	)
	for _, tc := range []struct {
		name     string
		method   string
		sigs     []string
		body     func() io.Reader
		wantErr  error
		want     answerTo
		wantRead int // bytes of the body
	}{
		{"GET", "GET", []string{sig}, text(body), hmacverify.ErrMethodNotAllowed, notPOST, 0},
		{"PUT", "PUT", []string{sig}, text(body), hmacverify.ErrMethodNotAllowed, notPOST, 0},
		{"post in lower case", "post", []string{sig}, text(body), hmacverify.ErrMethodNotAllowed, notPOST, 0},
		{"method before signature", "GET", nil, text(body), hmacverify.ErrMethodNotAllowed, notPOST, 0},

		{"unsigned", "POST", nil, text(body), hmacverify.ErrMissingSignature, mismatch, 0},
		{"empty signature", "POST", []string{""}, text(body), hmacverify.ErrMissingSignature, mismatch, 0},
		{"malformed signature", "POST", []string{"sha256=" + sig}, text(body), hmacverify.ErrMalformedSignature, mismatch, 0},
		{"two equal signatures", "POST", []string{sig, sig}, text(body), hmacverify.ErrMalformedSignature, mismatch, 0},
		{"two signatures, right one first", "POST", []string{sig, forged}, text(body), hmacverify.ErrMalformedSignature, mismatch, 0},
		{"two signatures, right one last", "POST", []string{forged, sig}, text(body), hmacverify.ErrMalformedSignature, mismatch, 0},
		{"an empty signature and the right one", "POST", []string{"", sig}, text(body), hmacverify.ErrMalformedSignature, mismatch, 0},
		{"two signatures in one line", "POST", []string{sig + ", " + sig}, text(body), hmacverify.ErrMalformedSignature, mismatch, 0},
		{"signature before length", "POST", nil, text(long), hmacverify.ErrMissingSignature, mismatch, 0},

		{"one byte too many", "POST", []string{reference(secret, []byte(long))}, text(long), new(http.MaxBytesError), tooLarge, limit + 1},
		{"endless", "POST", []string{sig}, func() io.Reader { return endless{} }, new(http.MaxBytesError), tooLarge, limit + 1},
		{"length before forgery", "POST", []string{forged}, text(long), new(http.MaxBytesError), tooLarge, limit + 1},
		{"broken off", "POST", []string{sig}, func() io.Reader { return io.MultiReader(strings.NewReader(body), brokenOff{}) }, errBrokenOff, badBody, len(body)},

		{"forged", "POST", []string{forged}, text(body), hmacverify.ErrSignatureMismatch, mismatch, len(body)},
		{"another body", "POST", []string{sig}, text(body + "\n"), hmacverify.ErrSignatureMismatch, mismatch, len(body) + 1},
		{"forgery before JSON", "POST", []string{forged}, text(notJSON), hmacverify.ErrSignatureMismatch, mismatch, len(notJSON)},
		{"not JSON", "POST", []string{reference(secret, []byte(notJSON))}, text(notJSON), hmacverify.ErrMalformedPayload, badJSON, len(notJSON)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			source := &countingReader{Reader: tc.body()}
			r := httptest.NewRequest(tc.method, "/", source)
			if tc.sigs != nil {
				r.Header["X-Guuru-Hmac-Sha256"] = tc.sigs
			}
			rc := newReceiver(t, secret)
			rc.MaxBodyBytes = limit

			w := httptest.NewRecorder()
			rc.Handler(unreachable(t)).ServeHTTP(w, r)
			if got := (answerTo{w.Code, w.Body.String(), w.Header().Get("Allow")}); got != tc.want {
				t.Errorf("got answer %+v\nwant %+v", got, tc.want)
			}
			if got, want := w.Header().Get("Content-Type"), "text/plain; charset=utf-8"; got != want {
				t.Errorf("got Content-Type %q, want %q", got, want)
			}
			if source.n != tc.wantRead {
				t.Errorf("got %d bytes of the body read, want %d", source.n, tc.wantRead)
			}
		})
		t.Run(tc.name+", ErrorHandler", func(t *testing.T) {
			r := httptest.NewRequest(tc.method, "/", tc.body())
			if tc.sigs != nil {
				r.Header["X-Guuru-Hmac-Sha256"] = tc.sigs
			}
			rc := newReceiver(t, secret)
			rc.MaxBodyBytes = limit
			calls := 0
			rc.ErrorHandler = func(w http.ResponseWriter, got *http.Request, err error) {
				calls++
				if got != r {
					t.Errorf("got another request, want the caller's own")
				}
				if _, ok := tc.wantErr.(*http.MaxBytesError); ok {
					var tooLarge *http.MaxBytesError
					if !errors.As(err, &tooLarge) || tooLarge.Limit != limit {
						t.Errorf("got %v, want an *http.MaxBytesError with Limit %d", err, limit)
					}
				} else if !errors.Is(err, tc.wantErr) {
					t.Errorf("got %v, want %v", err, tc.wantErr)
				}
				var syntax *json.SyntaxError
				if errors.Is(err, hmacverify.ErrMalformedPayload) && !errors.As(err, &syntax) {
					t.Errorf("got %v, want a *json.SyntaxError in it", err)
				}
				if !strings.HasPrefix(err.Error(), "hmacverify: ") {
					t.Errorf("got %q, want a text that begins with %q", err, "hmacverify: ")
				}
				w.WriteHeader(http.StatusTeapot)
			}
			w := httptest.NewRecorder()
			rc.Handler(unreachable(t)).ServeHTTP(w, r)
			if w.Code != http.StatusTeapot || w.Body.Len() != 0 || calls != 1 {
				t.Errorf("got %d %q after %d calls; want ErrorHandler's answer alone, after 1", w.Code, w.Body, calls)
			}
		})
	}
}

type answerTo struct {
	status      int
	text, allow string
}

func unreachable(t *testing.T) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Error("the request reached the handler behind")
	})
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

type brokenOff struct{}

func (brokenOff) Read(p []byte) (int, error) { return 0, errBrokenOff }

func TestDefaultErrorHandler(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want answerTo
	}{
		{hmacverify.ErrMethodNotAllowed, answerTo{405, "Invalid request, method is not POST", "POST"}},
		{hmacverify.ErrMissingSignature, answerTo{400, mismatchText, ""}},
		{hmacverify.ErrMalformedSignature, answerTo{400, mismatchText, ""}},
		{hmacverify.ErrSignatureMismatch, answerTo{400, mismatchText, ""}},
		{fmt.Errorf("wrapped: %w", hmacverify.ErrSignatureMismatch), answerTo{400, mismatchText, ""}},
		{hmacverify.ErrMalformedPayload, answerTo{400, "Invalid request, body is not JSON", ""}},
		{fmt.Errorf("wrapped: %w", &http.MaxBytesError{Limit: 1}), answerTo{413, "Invalid request, body is too large", ""}},
		{hmacverify.ErrEmptySecret, answerTo{500, "Receiver has no secret", ""}},
		{io.ErrUnexpectedEOF, answerTo{400, "Invalid request, unreadable body", ""}},
		{errors.New("the secret is " + secret), answerTo{400, "Invalid request, unreadable body", ""}},
		{nil, answerTo{400, "Invalid request, unreadable body", ""}},
	} {
		w := httptest.NewRecorder()
		hmacverify.DefaultErrorHandler(w, httptest.NewRequest("POST", "/", nil), tc.err)
		if got := (answerTo{w.Code, w.Body.String(), w.Header().Get("Allow")}); got != tc.want {
			t.Errorf("%v: got %+v, want %+v", tc.err, got, tc.want)
		}
		if got := w.Header().Get("X-Content-Type-Options"); got != "nosniff" {
			t.Errorf("%v: got X-Content-Type-Options %q, want nosniff", tc.err, got)
		}
	}
}

func TestBodyLimit(t *testing.T) {
	quoted := func(n int) string { return `"` + strings.Repeat("x", n-2) + `"` } // JSON of n bytes
	for _, tc := range []struct {
		limit  int64
		length int
		want   int
	}{
		{10, 9, 200},
		{10, 10, 200},
		{10, 11, 413},
		{1 << 62, 1 << 20, 200},
		{1<<63 - 1, 3000, 200},
		{0, 1 << 20, 200},
		{0, 1<<20 + 1, 413},
		{-1, 1 << 20, 200},
		{-1, 1<<20 + 1, 413},
		{2 << 20, 1<<20 + 1, 200},
	} {
		rc := newReceiver(t, secret)
		rc.MaxBodyBytes = tc.limit
		w := httptest.NewRecorder()
		rc.Handler(success).ServeHTTP(w, signed(quoted(tc.length)))
		if w.Code != tc.want {
			t.Errorf("limit %d, body of %d bytes: got %d, want %d", tc.limit, tc.length, w.Code, tc.want)
		}
	}
}

func TestHandlerPassesTheRequestOn(t *testing.T) {
	type key struct{}
	const body = `{"status":"rated"}`
	for name, announced := range map[string]int64{"announced": int64(len(body)), "chunked": -1} {
		t.Run(name, func(t *testing.T) {
			r := signed(body)
			r.ContentLength = announced
			if announced < 0 {
				r.TransferEncoding = []string{"chunked"}
			}
			r.Header.Set("X-Guuru-Event", hmacverify.EventChatRated)
			r.Header.Set("Idempotency-Key", "key")
			r = r.WithContext(context.WithValue(r.Context(), key{}, "value"))
			before, header := *r, maps.Clone(r.Header)

			called := false
			rc := newReceiver(t, secret)
			rc.Handler(http.HandlerFunc(func(w http.ResponseWriter, got *http.Request) {
				called = true
				if got == r {
					t.Error("got the caller's request, want a copy")
				}
				if got.Method != "POST" || got.URL != r.URL || !reflect.DeepEqual(got.Header, header) {
					t.Errorf("got %s %s %v\nwant POST %s %v", got.Method, got.URL, got.Header, r.URL, header)
				}
				if v := got.Context().Value(key{}); v != "value" {
					t.Errorf("got context value %v, want %q", v, "value")
				}
				if got.ContentLength != int64(len(body)) || got.TransferEncoding != nil {
					t.Errorf("got ContentLength %d, TransferEncoding %q; want %d and none", got.ContentLength, got.TransferEncoding, len(body))
				}
				if text, err := io.ReadAll(got.Body); string(text) != body || err != nil {
					t.Errorf("got body %q, %v; want %q, nil", text, err, body)
				}
				if err := got.Body.Close(); err != nil {
					t.Errorf("closing the body: got %v, want nil", err)
				}
			})).ServeHTTP(httptest.NewRecorder(), r)
			if !called {
				t.Fatal("the request did not reach the handler behind")
			}
			if !reflect.DeepEqual(*r, before) || !reflect.DeepEqual(r.Header, header) {
				t.Errorf("the caller's request was changed: got %+v\nwant %+v", *r, before)
			}
		})
	}
}

// A program that makes its requests itself, as a function's adapter does, may leave
// the body nil.
func TestNilBody(t *testing.T) {
	r, err := http.NewRequest("POST", "/", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Guuru-Hmac-Sha256", reference(secret, nil))
	w := httptest.NewRecorder()
	newReceiver(t, secret).Handler(success).ServeHTTP(w, r)
	if want := "Invalid request, body is not JSON"; w.Code != 400 || w.Body.String() != want {
		t.Errorf("got %d %q, want 400 %q", w.Code, w.Body, want)
	}
}

// Authentic JSON is never refused for its structure.
func TestPayloadOfAnyStructure(t *testing.T) {
	for _, tc := range []struct {
		body     string
		want     hmacverify.Payload
		mismatch bool // of a field's type
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
		{`[{"status":"rated"}]`, hmacverify.Payload{}, true},
		{`"rated"`, hmacverify.Payload{}, true},
		{`1`, hmacverify.Payload{}, true},
	} {
		called := false
		w := httptest.NewRecorder()
		newReceiver(t, secret).Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			called = true
			p, err := hmacverify.PayloadFrom(r.Context())
			if p == nil || *p != tc.want {
				t.Errorf("%s: got payload %+v, want %+v", tc.body, p, tc.want)
			}
			var mismatch *json.UnmarshalTypeError
			if got := errors.As(err, &mismatch); got != tc.mismatch || (err != nil) != tc.mismatch {
				t.Errorf("%s: got error %v, want an *json.UnmarshalTypeError: %t", tc.body, err, tc.mismatch)
			}
			if err != nil && !strings.HasPrefix(err.Error(), "hmacverify: ") {
				t.Errorf("%s: got %q, want a text that begins with %q", tc.body, err, "hmacverify: ")
			}
			if again, _ := hmacverify.PayloadFrom(r.Context()); again != p {
				t.Errorf("%s: got another pointer the second time", tc.body)
			}
			if body, err := io.ReadAll(r.Body); string(body) != tc.body || err != nil {
				t.Errorf("got body %q, %v; want %q, nil", body, err, tc.body)
			}
		})).ServeHTTP(w, signed(tc.body))
		if !called {
			t.Errorf("%s: refused with %d %q", tc.body, w.Code, w.Body)
		}
	}
	for _, body := range []string{
		``, ` `, `{`, `{"status":"rated"`, `{} {}`, `{"status":rated}`, `{'status':'rated'}`, "\ufeff{}", `nul`, `status=rated`,
		`{"rating":"of another type","status":}`,
		strings.Repeat("[", 10_001) + strings.Repeat("]", 10_001), // deeper than encoding/json goes
	} {
		w := httptest.NewRecorder()
		newReceiver(t, secret).Handler(unreachable(t)).ServeHTTP(w, signed(body))
		if want := "Invalid request, body is not JSON"; w.Code != 400 || w.Body.String() != want {
			t.Errorf("%.40s: got %d %q, want 400 %q", body, w.Code, w.Body, want)
		}
	}
}

func TestPayloadFromElsewhere(t *testing.T) {
	if p, err := hmacverify.PayloadFrom(context.Background()); p != nil || err != hmacverify.ErrNoPayload {
		t.Errorf("got %v, %v; want nil, %v", p, err, hmacverify.ErrNoPayload)
	}
}

func TestPayloadJSON(t *testing.T) {
	for _, tc := range []struct {
		payload hmacverify.Payload
		want    string
	}{
		{hmacverify.Payload{}, `{}`},
		{hmacverify.Payload{User: hmacverify.User{IsLead: true}}, `{"user":{"isLead":true}}`},
		{
			hmacverify.Payload{
				ID: "i", User: hmacverify.User{Name: "n", Email: "e", Locale: "l", IsLead: true, IsUser: true},
				Question: "q", Status: "s", Language: "l", TranscriptURL: "t", Rating: -1, Category: "c",
				CreatedAt: 1, AcceptedAt: 2, ClosedAt: 3, RatedAt: 4,
			},
			`{"id":"i","user":{"name":"n","email":"e","locale":"l","isLead":true,"isUser":true},"question":"q","status":"s","language":"l","transcriptURL":"t","rating":-1,"category":"c","createdAt":1,"acceptedAt":2,"closedAt":3,"ratedAt":4}`,
		},
	} {
		text, err := json.Marshal(tc.payload)
		if string(text) != tc.want || err != nil {
			t.Errorf("%+v: got %s, %v\nwant %s, nil", tc.payload, text, err, tc.want)
		}
		var back hmacverify.Payload
		if err := json.Unmarshal(text, &back); back != tc.payload || err != nil {
			t.Errorf("%s: got %+v, %v\nwant %+v, nil", text, back, err, tc.payload)
		}
	}
}

func TestMillis(t *testing.T) {
	for _, tc := range []struct {
		millis hmacverify.Millis
		want   string // RFC 3339
	}{
		{1551456587480, "2019-03-01T16:09:47.48Z"},
		{1, "1970-01-01T00:00:00.001Z"},
		{-1, "1969-12-31T23:59:59.999Z"},
		{0, "0001-01-01T00:00:00Z"},
	} {
		got := tc.millis.Time()
		if got.Format(time.RFC3339Nano) != tc.want || got.IsZero() != (tc.millis == 0) || got.Location() != time.UTC {
			t.Errorf("%d: got %v, IsZero %t; want %s", tc.millis, got, got.IsZero(), tc.want)
		}
	}
}

func TestReceiverShowsNoSecret(t *testing.T) {
	const secret = "do not show this"
	rc := newReceiver(t, secret, secret)
	rc.Verify(nil, strings.Repeat("0", 64)) // so that there are keyed HMACs to show
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("receiver", "rc", rc, "copy", *rc)
	for _, shown := range []string{fmt.Sprintf("%v %+v %#v", rc, rc, rc), fmt.Sprintf("%v %+v %#v", *rc, *rc, *rc), log.String()} {
		if strings.Contains(shown, secret) || strings.Contains(shown, fmt.Sprintf("%x", secret)) || strings.Contains(shown, fmt.Sprint([]byte(secret))) {
			t.Errorf("the secret is shown in %s", shown)
		}
	}
}

func TestHandlersInARow(t *testing.T) {
	rc := newReceiver(t, secret)
	w := httptest.NewRecorder()
	ex := examples(t)[1]
	rc.Handler(rc.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p, err := hmacverify.PayloadFrom(r.Context()); err != nil || *p != wantPayloads[1] {
			t.Errorf("got %+v, %v; want %+v, nil", p, err, wantPayloads[1])
		}
		success(w, r)
	}))).ServeHTTP(w, post(ex.body, ex.sig))
	if w.Code != 200 {
		t.Errorf("got %d %q, want 200", w.Code, w.Body)
	}
}

// One Receiver serves many goroutines, and no delivery gets another's payload or body.
func TestConcurrentDeliveries(t *testing.T) {
	secrets := []string{"new secret", "old secret"}
	rc := newReceiver(t, secrets...)
	handler := rc.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, err := hmacverify.PayloadFrom(r.Context())
		if err != nil {
			t.Error(err)
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if want := fmt.Sprintf(`{"id":%q,"rating":%d}`, p.ID, p.Rating); string(body) != want || p.ID != r.Header.Get("Idempotency-Key") {
			t.Errorf("got body %s with payload %+v of delivery %s", body, p, r.Header.Get("Idempotency-Key"))
		}
	}))
	var wg sync.WaitGroup
	for g := range 64 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range 50 {
				id := fmt.Sprintf("%d-%d", g, i)
				body := fmt.Appendf(nil, `{"id":%q,"rating":%d}`, id, i)
				sig := reference(secrets[(g+i)%2], body)
				r := post(body, sig)
				r.Header.Set("Idempotency-Key", id)
				w := httptest.NewRecorder()
				handler.ServeHTTP(w, r)
				if w.Code != 200 {
					t.Errorf("%s: got %d %q, want 200", id, w.Code, w.Body)
				}
				if err := rc.Verify(body, sig); err != nil {
					t.Errorf("%s: Verify: got %v, want nil", id, err)
				}
				if err := rc.Verify(body, reference("another", body)); !errors.Is(err, hmacverify.ErrSignatureMismatch) {
					t.Errorf("%s: Verify, forged: got %v, want %v", id, err, hmacverify.ErrSignatureMismatch)
				}
			}
		}()
	}
	wg.Wait()
}

// Over a real connection, byte for byte as a hostile or a plain old client sends it.
func TestRawRequests(t *testing.T) {
	ex := examples(t)[0]
	body, sig := string(ex.body), ex.sig
	forged := strings.Repeat("0", 64)
	const limit = 1000
	long := strings.Repeat(" ", limit-1) + "{}" // one byte too many
	longSig := reference(secret, []byte(long))
	header := func(lines ...string) string {
		return "POST / HTTP/1.1\r\nHost: example.com\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n"
	}
	length := func(n int) string { return "Content-Length: " + strconv.Itoa(n) }
	chunk := func(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }
	const (
		chunked = "Transfer-Encoding: chunked"
		signed  = "X-Guuru-Hmac-Sha256: "
		last    = "0\r\n\r\n" // chunk
		success = "Success!"
		badBody = "Invalid request, unreadable body"
		anyText = "*" // the answer is net/http's
	)
	for _, tc := range []struct {
		name    string
		request string
		status  int
		text    string
	}{
		{"length", header(signed+sig, length(len(body))) + body, 200, success},
		{"one chunk", header(signed+sig, chunked) + chunk(body) + last, 200, success},
		{"three chunks", header(signed+sig, chunked) + chunk(body[:1]) + chunk(body[1:200]) + chunk(body[200:]) + last, 200, success},
		{"name in lower case", header("x-guuru-hmac-sha256: "+sig, length(len(body))) + body, 200, success},
		{"name in upper case", header("X-GUURU-HMAC-SHA256: "+sig, length(len(body))) + body, 200, success},
		{"white space around the value", header(signed+" \t"+sig+" \t", length(len(body))) + body, 200, success}, // not part of it: RFC 9110, section 5.5
		{"signature again in a trailer", header(signed+sig, chunked, "Trailer: X-Guuru-Hmac-Sha256") + chunk(body) + "0\r\n" + signed + sig + "\r\n\r\n", 200, success},
		{"HTTP/1.0", "POST / HTTP/1.0\r\n" + signed + sig + "\r\n" + length(len(body)) + "\r\n\r\n" + body, 200, success},

		{"unsigned", header(length(len(body))) + body, 400, mismatchText},
		{"unsigned, in chunks", header(chunked) + chunk(body) + last, 400, mismatchText},
		{"empty signature", header(signed, length(len(body))) + body, 400, mismatchText},
		{"forged", header(signed+forged, length(len(body))) + body, 400, mismatchText},
		{"upper case", header(signed+strings.ToUpper(sig), length(len(body))) + body, 400, mismatchText},
		{"not ASCII", header(signed+sig[:62]+"é", length(len(body))) + body, 400, mismatchText},
		{"signature only in a trailer", header(chunked, "Trailer: X-Guuru-Hmac-Sha256") + chunk(body) + "0\r\n" + signed + sig + "\r\n\r\n", 400, mismatchText},
		{"signature in the query", "POST /?X-Guuru-Hmac-Sha256=" + sig + " HTTP/1.1\r\nHost: example.com\r\n" + length(len(body)) + "\r\n\r\n" + body, 400, mismatchText},
		{"two equal signatures", header(signed+sig, signed+sig, length(len(body))) + body, 400, mismatchText},
		{"two signatures, right one first", header(signed+sig, signed+forged, length(len(body))) + body, 400, mismatchText},
		{"two signatures, right one last", header(signed+forged, signed+sig, length(len(body))) + body, 400, mismatchText},
		{"two signatures in two spellings", header(signed+sig, length(len(body)), "x-guuru-hmac-sha256: "+sig) + body, 400, mismatchText},
		{"two signatures in two other spellings", header("X-GUURU-HMAC-SHA256: "+forged, "x-guuru-hmac-sha256: "+sig, length(len(body))) + body, 400, mismatchText},
		{"an empty signature and the right one", header(signed, signed+sig, length(len(body))) + body, 400, mismatchText},
		{"two signatures in one line", header(signed+sig+","+sig, length(len(body))) + body, 400, mismatchText},

		{"cut short, with a length", header(signed+sig, length(len(body))) + body[:100], 400, badBody},
		{"no body, with a length", header(signed+sig, length(len(body))), 400, badBody},
		{"length one larger", header(signed+sig, length(len(body)+1)) + body, 400, badBody},
		{"length one smaller", header(signed+sig, length(len(body)-1)) + body, 400, mismatchText},
		{"length 0", header(signed+sig, length(0)) + body, 400, mismatchText},
		{"no length", header(signed+sig) + body, 400, mismatchText},
		{"HTTP/1.0 without a length", "POST / HTTP/1.0\r\n" + signed + sig + "\r\n\r\n" + body, 400, mismatchText},
		{"cut short, in a chunk", header(signed+sig, chunked) + fmt.Sprintf("%x\r\n", len(body)) + body[:100], 400, badBody},
		{"cut short, between chunks", header(signed+sig, chunked) + chunk(body), 400, badBody},
		{"cut short, in the last chunk", header(signed+sig, chunked) + chunk(body) + "0\r\n", 400, badBody},
		{"bad chunk after a good body", header(signed+sig, chunked) + chunk(body) + "x\r\n", 400, badBody},
		{"chunk without its end", header(signed+sig, chunked) + fmt.Sprintf("%x\r\n%s", len(body), body) + last, 400, badBody},
		{"chunk of a negative length", header(signed+sig, chunked) + chunk(body) + "-1\r\n\r\n", 400, badBody},
		{"one byte over the limit, announced", header(signed+longSig, length(len(long))) + long, 413, "Invalid request, body is too large"},
		{"one byte over the limit, not announced", header(signed+longSig, chunked) + chunk(long) + last, 413, "Invalid request, body is too large"},
		{"endless body", header(signed+sig, length(1<<30)) + strings.Repeat(body, 10), 413, "Invalid request, body is too large"},

		{"GET", "GET / HTTP/1.1\r\nHost: example.com\r\n" + signed + sig + "\r\n" + length(len(body)) + "\r\n\r\n" + body, 405, "Invalid request, method is not POST"},
		{"HEAD", "HEAD / HTTP/1.1\r\nHost: example.com\r\n" + signed + sig + "\r\n\r\n", 405, ""},
		{"method overridden", "GET / HTTP/1.1\r\nHost: example.com\r\nX-HTTP-Method-Override: POST\r\n" + signed + sig + "\r\n" + length(len(body)) + "\r\n\r\n" + body, 405, "Invalid request, method is not POST"},
		{"two lengths", header(signed+sig, length(len(body)), length(5)) + body, 400, anyText},
		{"signature folded over two lines", header(signed+sig[:32]+"\r\n "+sig[32:], length(len(body))) + body, 400, mismatchText},
		{"space before the colon", header("X-Guuru-Hmac-Sha256 : "+sig, length(len(body))) + body, 400, anyText},
	} {
		t.Run(tc.name, func(t *testing.T) {
			reached := false
			rc := newReceiver(t, secret)
			rc.MaxBodyBytes = limit
			server := httptest.NewServer(rc.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				reached = true
				io.WriteString(w, success)
			})))
			defer server.Close()

			conn := dial(t, server.Listener.Addr())
			if _, err := io.WriteString(conn, tc.request); err != nil {
				t.Fatal(err)
			}
			if err := conn.CloseWrite(); err != nil { // the client has no more to say, and listens
				t.Fatal(err)
			}
			method, _, _ := strings.Cut(tc.request, " ")
			resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
			if err != nil {
				t.Fatalf("no answer: %v", err)
			}
			text, err := io.ReadAll(resp.Body)
			if resp.StatusCode != tc.status || tc.text != anyText && string(text) != tc.text || err != nil {
				t.Errorf("got %d %q, %v; want %d %q", resp.StatusCode, text, err, tc.status, tc.text)
			}
			server.Close() // waits for the handler
			if want := tc.status == 200; reached != want {
				t.Errorf("got handler behind called: %t, want %t", reached, want)
			}
		})
	}
}

func dial(tb testing.TB, addr net.Addr) *net.TCPConn {
	tb.Helper()
	conn, err := net.Dial(addr.Network(), addr.String())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(10 * time.Second)) // for a test that fails; none waits for it
	return conn.(*net.TCPConn)
}

// A client that asks first is told to send the body if its header may be of an
// authentic request, and not otherwise.
func TestExpectContinue(t *testing.T) {
	ex := examples(t)[0]
	server := httptest.NewServer(newReceiver(t, secret).Handler(success))
	defer server.Close()
	for _, tc := range []struct {
		name, header string
		want         []string // status lines
	}{
		{"signed", "X-Guuru-Hmac-Sha256: " + ex.sig + "\r\n", []string{"HTTP/1.1 100 Continue", "HTTP/1.1 200 OK"}},
		{"unsigned", "", []string{"HTTP/1.1 400 Bad Request"}},
		{"malformed", "X-Guuru-Hmac-Sha256: x\r\n", []string{"HTTP/1.1 400 Bad Request"}},
	} {
		conn := dial(t, server.Listener.Addr())
		fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: example.com\r\nExpect: 100-continue\r\nConnection: close\r\nContent-Length: %d\r\n%s\r\n", len(ex.body), tc.header)
		var got []string
		for lines := bufio.NewScanner(conn); lines.Scan(); {
			if line := lines.Text(); strings.HasPrefix(line, "HTTP/") {
				got = append(got, line)
				if strings.Contains(line, " 100 ") {
					conn.Write(ex.body)
				}
			}
		}
		if !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
}

func TestHTTP2(t *testing.T) {
	ex := examples(t)[1]
	server := httptest.NewUnstartedServer(newReceiver(t, secret).Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p, err := hmacverify.PayloadFrom(r.Context()); err != nil || *p != wantPayloads[1] {
			t.Errorf("got %+v, %v; want %+v, nil", p, err, wantPayloads[1])
		}
		io.WriteString(w, r.Proto)
	})))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	for _, tc := range []struct {
		name   string
		body   io.Reader // a *bytes.Reader is announced, another reader is not
		sigs   []string
		status int
		text   string
	}{
		{"announced", bytes.NewReader(ex.body), []string{ex.sig}, 200, "HTTP/2.0"},
		{"not announced", io.MultiReader(bytes.NewReader(ex.body)), []string{ex.sig}, 200, "HTTP/2.0"},
		{"unsigned", bytes.NewReader(ex.body), nil, 400, mismatchText},
		{"two signatures", bytes.NewReader(ex.body), []string{ex.sig, ex.sig}, 400, mismatchText},
		{"forged", bytes.NewReader(ex.body[1:]), []string{ex.sig}, 400, mismatchText},
		{"too large", endless{}, []string{ex.sig}, 413, "Invalid request, body is too large"},
	} {
		r, err := http.NewRequest("POST", server.URL, tc.body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header["X-Guuru-Hmac-Sha256"] = tc.sigs
		resp, err := server.Client().Do(r)
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != tc.status || string(text) != tc.text || err != nil {
			t.Errorf("%s: got %d %q, %v; want %d %q", tc.name, resp.StatusCode, text, err, tc.status, tc.text)
		}
	}
}

// A client that announces a large body and sends next to nothing holds next to no
// memory, and when it leaves, nothing of it stays.
func TestAnnouncedBodiesHoldNoMemory(t *testing.T) {
	const (
		clients = 500
		limit   = 32 << 10 // bytes of heap for each, the connection's buffers among them
	)
	goroutines := runtime.NumGoroutine()
	var reading, done atomic.Int64
	receiver := newReceiver(t, secret).Handler(unreachable(t))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = &signalReader{ReadCloser: r.Body, began: func() { reading.Add(1) }}
		receiver.ServeHTTP(w, r)
		done.Add(1)
	}))
	defer server.Close()

	conns := make([]net.Conn, clients)
	for i := range conns {
		conns[i] = dial(t, server.Listener.Addr())
	}
	before := heap()
	for _, conn := range conns {
		fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: example.com\r\nX-Guuru-Hmac-Sha256: %064d\r\nContent-Length: %d\r\n\r\n{", 0, 1<<20)
	}
	waitFor(t, func() bool { return reading.Load() == clients }, "every body's first byte to be read")
	if got := int64(heap()-before) / clients; got > limit {
		t.Errorf("got %d bytes of heap for each client, want %d at most", got, limit)
	}

	for _, conn := range conns {
		conn.Close()
	}
	waitFor(t, func() bool { return done.Load() == clients }, "every request to end")
	server.Close()
	waitFor(t, func() bool { return runtime.NumGoroutine() <= goroutines }, "every goroutine to end")
}

// A signalReader calls began after its first byte was read.
type signalReader struct {
	io.ReadCloser
	began func()
	once  sync.Once
}

func (s *signalReader) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	if n > 0 {
		s.once.Do(s.began)
	}
	return n, err
}

func heap() int64 {
	runtime.GC()
	runtime.GC() // the second one empties the pools
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

func waitFor(t *testing.T, condition func() bool, what string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited 10 s in vain for %s", what)
		}
	}
}

// A request with a valid header field in the worst place of every kind: accepted if
// and only if the reference says so, and then passed on whole.
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
		right := reference(secret, body)
		if sign { // for the bodies that the fuzzer finds, which it cannot sign
			sig = right
		}
		accept := method == "POST" && copies%3 == 1 && sig == right && len(body) <= 500 && json.Valid(body)

		r := httptest.NewRequest("POST", "/", bytes.NewReader(body))
		r.Method = method
		for range copies % 3 {
			r.Header.Add("X-Guuru-Hmac-Sha256", sig)
		}
		reached := false
		w := httptest.NewRecorder()
		rc.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			reached = true
			if got, err := io.ReadAll(r.Body); !bytes.Equal(got, body) || err != nil {
				t.Errorf("got body %q, %v; want %q, nil", got, err, body)
			}
			var want hmacverify.Payload
			wantErr := json.Unmarshal(body, &want)
			if p, err := hmacverify.PayloadFrom(r.Context()); p == nil || *p != want || (err == nil) != (wantErr == nil) {
				t.Errorf("got payload %+v, %v; want %+v, %v", p, err, want, wantErr)
			}
		})).ServeHTTP(w, r)
		if reached != accept {
			t.Errorf("%s %q signed %d times with %q: got accepted: %t, want %t", method, body, copies%3, sig, reached, accept)
		}
		if ok := w.Code == 200; ok != accept {
			t.Errorf("got status %d, want 200: %t", w.Code, accept)
		}
		if !accept && (w.Code < 400 || strings.Contains(w.Body.String(), right) || strings.Contains(w.Body.String(), secret)) {
			t.Errorf("got answer %d %q, want an error that shows neither signature nor secret", w.Code, w.Body)
		}
	})
}

// The cost of one request, from the request to the payload, without the server around
// it. Baselines: "unprotected" reads the body, hashes it and decodes it; "inline" is
// the documented check with a json.Unmarshal after it.
func BenchmarkHandler(b *testing.B) {
	ex := examples(b)[0]
	rc := newReceiver(b, secret)
	for _, bm := range handlers(b, rc) {
		b.Run(bm.name, func(b *testing.B) {
			run := request(b, bm.handler, ex)
			b.ReportAllocs()
			for b.Loop() {
				run()
			}
		})
	}
}

type namedHandler struct {
	name    string
	handler http.Handler
}

// handlers are ways to the same payload.
func handlers(tb testing.TB, rc *hmacverify.Receiver) []namedHandler {
	return []namedHandler{
		{"unprotected", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				tb.Fatal(err)
			}
			digest = sha256.Sum256(body)
			p := new(hmacverify.Payload)
			if err := json.Unmarshal(body, p); err != nil {
				tb.Fatal(err)
			}
			payload = p
		})},
		{"inline", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				tb.Fatal(err)
			}
			if !hmac.Equal([]byte(reference(secret, body)), []byte(r.Header.Get("X-Guuru-Hmac-Sha256"))) {
				tb.Fatal("refused")
			}
			p := new(hmacverify.Payload)
			if err := json.Unmarshal(body, p); err != nil {
				tb.Fatal(err)
			}
			payload = p
		})},
		{"Receiver.Handler", rc.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			p, err := hmacverify.PayloadFrom(r.Context())
			if err != nil {
				tb.Fatal(err)
			}
			payload = p
		}))},
	}
}

// What the handlers computed, so that no compiler leaves it out.
var (
	digest  [sha256.Size]byte
	payload *hmacverify.Payload
)

// request returns a function that sends ex through handler, and makes nothing of its
// own at each call.
func request(tb testing.TB, handler http.Handler, ex example) func() {
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

func TestHandlerAllocations(t *testing.T) {
	if raceEnabled() {
		t.Skip("under -race, sync.Pool drops what it is given at random")
	}
	allocs := map[string]float64{}
	for _, h := range handlers(t, newReceiver(t, secret)) {
		allocs[h.name] = testing.AllocsPerRun(100, request(t, h.handler, examples(t)[0]))
	}
	if got, most := allocs["Receiver.Handler"], allocs["unprotected"]+3; got > most {
		t.Errorf("got %v allocations for one request, want %v at most, 3 more than unprotected", got, most)
	}
}

// The Go code in the README builds, as one service: the program, its test and the
// handler with a database. The test there is run.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	module, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{
		"go.mod": "module service\n\ngo 1.24\n\nrequire example.com/hmacverify v0.0.0\n\nreplace example.com/hmacverify => " + strconv.Quote(module) + "\n",
	}
	blocks := strings.Split(string(readme), "```go\n")[1:]
	for _, block := range blocks {
		code, _, _ := strings.Cut(block, "```")
		switch {
		case strings.HasPrefix(code, "package main\n"):
			files["main.go"] = code
		case strings.HasPrefix(code, "func Test"):
			files["main_test.go"] = "package main\n\n" + imports("bytes", "net/http", "net/http/httptest", "testing", "example.com/hmacverify") + code
		default:
			files["inbox.go"] = "package main\n\n" + imports("database/sql", "io", "log/slog", "net/http", "example.com/hmacverify") + code
		}
	}
	if len(files) != 4 || len(blocks) != 3 {
		t.Fatalf("got %d blocks of Go in the README, want a program, its test and a handler", len(blocks))
	}
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	run := exec.Command("go", "test", "-v", ".")
	run.Dir = dir
	if out, err := run.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: TestDeliver")) {
		t.Errorf("go test: %v\n%s", err, out)
	}
}

func imports(paths ...string) string {
	return "import (\n\t\"" + strings.Join(paths, "\"\n\t\"") + "\"\n)\n\n"
}

func ExampleReceiver_Handler() {
	rc, err := hmacverify.New("secr3t") // os.Getenv("GUURU_SECRET") in a service
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/guuru", rc.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "Success!")
	})))

	server := httptest.NewServer(mux)
	defer server.Close()
	for _, sig := range []string{"0000000000000000000000000000000000000000000000000000000000000000", hmacverify.Sign("secr3t", []byte("{}"))} {
		r, err := http.NewRequest("POST", server.URL+"/guuru", strings.NewReader("{}"))
		if err != nil {
			log.Fatal(err)
		}
		r.Header.Set(hmacverify.SignatureHeader, sig)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			log.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		fmt.Println(resp.StatusCode, string(text), err)
	}
	// Output:
	// 400 Invalid request, non-matching HMAC-SHA256 received <nil>
	// 200 Success! <nil>
}

func ExamplePayloadFrom() {
	rc, err := hmacverify.New("secr3t")
	if err != nil {
		log.Fatal(err)
	}
	handler := rc.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, err := hmacverify.PayloadFrom(r.Context())
		if err != nil {
			// Authentic, but an event with a structure of its own: decode r.Body.
			fmt.Println(err)
			return
		}
		fmt.Println(p.User.Name, p.Rating, p.RatedAt.Time())
	}))

	for _, body := range []string{
		`{"user":{"name":"João"},"rating":1,"ratedAt":1551456472882}`,
		`{"rating":"very good"}`,
	} {
		r := httptest.NewRequest("POST", "/guuru", strings.NewReader(body))
		r.Header.Set(hmacverify.SignatureHeader, hmacverify.Sign("secr3t", []byte(body)))
		handler.ServeHTTP(httptest.NewRecorder(), r)
	}
	// Output:
	// João 1 2019-03-01 16:07:52.882 +0000 UTC
	// hmacverify: payload of another structure: json: cannot unmarshal string into Go struct field Payload.rating of type int
}

// To change the secret, accept both until the last delivery that was signed with the
// old one has arrived.
func ExampleNew_rotation() {
	rc, err := hmacverify.New("new secr3t", "secr3t")
	if err != nil {
		log.Fatal(err)
	}
	body := []byte("{}")
	fmt.Println(rc.Verify(body, hmacverify.Sign("new secr3t", body)))
	fmt.Println(rc.Verify(body, hmacverify.Sign("secr3t", body)))
	fmt.Println(rc.Verify(body, hmacverify.Sign("older secr3t", body)))
	// Output:
	// <nil>
	// <nil>
	// hmacverify: signature mismatch
}

// An ErrorHandler that logs why a request was refused, and answers as usual.
func ExampleReceiver_errorHandler() {
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{} // for an output that is the same each time
			}
			return a
		},
	}))
	rc, err := hmacverify.New("secr3t")
	if err != nil {
		log.Fatal(err)
	}
	rc.ErrorHandler = func(w http.ResponseWriter, r *http.Request, err error) {
		level := slog.LevelInfo // what strangers send
		if errors.Is(err, hmacverify.ErrMalformedPayload) {
			level = slog.LevelError // what was signed with the secret
		}
		logger.Log(r.Context(), level, "webhook refused", "from", r.RemoteAddr, "err", err)
		hmacverify.DefaultErrorHandler(w, r, err)
	}

	w := httptest.NewRecorder()
	rc.Handler(http.NotFoundHandler()).ServeHTTP(w, httptest.NewRequest("POST", "/guuru", strings.NewReader("{}")))
	fmt.Println(w.Code, w.Body)
	// Output:
	// level=INFO msg="webhook refused" from=192.0.2.1:1234 err="hmacverify: missing signature"
	// 400 Invalid request, non-matching HMAC-SHA256 received
}

// How a service tests its own handler: through the receiver, with requests that it
// signs itself.
func ExampleSign() {
	rc, err := hmacverify.New("test secret")
	if err != nil {
		log.Fatal(err)
	}
	// In the test of a service, this is the service's own handler.
	handler := rc.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNoContent)
	}))

	body := `{"user":{"name":"Ada"},"rating":5,"ratedAt":1551456472882}`
	r := httptest.NewRequest("POST", "/guuru", strings.NewReader(body))
	r.Header.Set(hmacverify.SignatureHeader, hmacverify.Sign("test secret", []byte(body)))
	r.Header.Set(hmacverify.EventHeader, hmacverify.EventChatRated)
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	fmt.Println(w.Code)
	// Output:
	// 204
}
