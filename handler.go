// Copyright (c) 2026 the hmacverify authors
// SPDX-License-Identifier: MIT

package hmacverify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Request headers that are not signed: a replay can change them.
const (
	EventHeader          = "X-Guuru-Event"
	IdempotencyKeyHeader = "Idempotency-Key"
)

// Values of [EventHeader].
const (
	EventChatAssigned    = "chat-assigned" // offered to experts
	EventChatOpened      = "chat-opened"   // taken by an expert
	EventChatClosed      = "chat-closed"   // chat-rated follows
	EventChatReopened    = "chat-reopened"
	EventChatTransferred = "chat-transferred" // to your own staff; chat-rated follows
	EventChatRated       = "chat-rated"
	EventMessageCreated  = "message-created" // the body can differ from Payload
)

// DefaultMaxBodyBytes is the limit used if MaxBodyBytes is zero or negative:
// 1 MiB. The bodies in Guuru's documentation are under 500 bytes.
const DefaultMaxBodyBytes = 1 << 20

var (
	// ErrMethodNotAllowed means that the method is not POST.
	ErrMethodNotAllowed = errors.New("hmacverify: method not allowed")
	// ErrMalformedPayload means that the body is not JSON or nested too deeply.
	// Errors that wrap it also wrap the one from encoding/json.
	ErrMalformedPayload = errors.New("hmacverify: malformed payload")
	// ErrNoPayload means that the context belongs to no verified request.
	ErrNoPayload = errors.New("hmacverify: no payload in context")
)

// A Receiver authenticates requests from Guuru:
//
//	rc, err := hmacverify.New(os.Getenv("GUURU_SECRET"))
//	if err != nil {
//		log.Fatal(err)
//	}
//	http.Handle("/guuru", rc.Handler(http.HandlerFunc(deliver)))
//
// For deliver, see the example of [Receiver.Handler].
//
// The zero Receiver has no secret and rejects every request. A Receiver is safe
// for concurrent use once its fields are set. Printing it reveals no secret.
type Receiver struct {
	// MaxBodyBytes limits the length of a request's body. If it is zero or
	// negative, DefaultMaxBodyBytes is used.
	MaxBodyBytes int64

	// ErrorHandler responds to rejected requests. If it is nil,
	// DefaultErrorHandler is used. An ErrorHandler must write a response;
	// otherwise net/http sends 200 OK and Guuru considers the delivery accepted.
	//
	// r is a shallow copy of the request. If the body was read, r.Body yields
	// what was read. Otherwise r.Body is the unread body, and reading more than
	// MaxBodyBytes is an error. Escape the text of err: it may be client input.
	ErrorHandler func(w http.ResponseWriter, r *http.Request, err error)

	signers *sync.Pool // of *signer; nil if New did not make the Receiver
}

// New returns a Receiver that accepts a body signed with any of secrets. While
// you rotate the secret, pass the new and the old one.
//
// If there are no secrets, or if any is empty, New returns nil and an error
// that wraps [ErrEmptySecret]. A line break in a secret is also an error: it is
// most likely a file's line ending. Trim it.
func New(secrets ...string) (*Receiver, error) {
	if len(secrets) == 0 {
		return nil, ErrEmptySecret
	}
	if i := slices.IndexFunc(secrets, isEmpty); i >= 0 {
		return nil, fmt.Errorf("%w (%d of %d)", ErrEmptySecret, i+1, len(secrets))
	}
	if i := slices.IndexFunc(secrets, containsLineBreak); i >= 0 {
		return nil, fmt.Errorf("hmacverify: secret %d of %d contains a line break", i+1, len(secrets))
	}
	secrets = slices.Clone(secrets) // the caller may change its slice later
	signers := &sync.Pool{New: func() any { return newSigner(secrets) }}
	signers.Put(newSigner(secrets)) // so that FIPS 140-only mode panics at the start
	return &Receiver{signers: signers}, nil
}

func containsLineBreak(secret string) bool { return strings.ContainsAny(secret, "\r\n") }

// Verify is like the package-level [Verify], but tries each of the receiver's
// secrets in turn. With one secret, it is faster, since it reuses a keyed HMAC.
// Use it for bodies of any length that do not arrive over net/http, such as
// those from a queue. On a nil or zero Receiver, it returns [ErrEmptySecret].
func (rc *Receiver) Verify(body []byte, sig string) error {
	if rc == nil || rc.signers == nil {
		return ErrEmptySecret
	}
	mac, err := decode(sig)
	if err != nil {
		return err
	}
	return rc.verifyMAC(body, mac)
}

func (rc *Receiver) verifyMAC(body []byte, mac [sha256.Size]byte) error {
	s := rc.signers.Get().(*signer)
	defer rc.signers.Put(s)
	for _, keyed := range s.hmacs {
		keyed.Reset() // the key remains
		keyed.Write(body)
		if hmac.Equal(mac[:], keyed.Sum(s.sum[:0])) {
			return nil
		}
	}
	return ErrSignatureMismatch
}

// A signer computes the MACs of one body at a time. It is reused, since keying
// an HMAC costs more than signing a short body.
type signer struct {
	hmacs []hash.Hash       // one for each secret
	sum   [sha256.Size]byte // for the result, so that it is not allocated
}

func newSigner(secrets []string) *signer {
	s := new(signer)
	for _, secret := range secrets {
		s.hmacs = append(s.hmacs, hmac.New(sha256.New, []byte(secret)))
	}
	return s
}

// Handler returns a handler that passes valid requests to next and all others
// to ErrorHandler. It panics if rc is nil, or if next is nil or a nil
// [http.HandlerFunc], but does not detect other nil values in next. The error
// of a rejected request wraps the first of these that applies:
//
//  1. [ErrEmptySecret] if the Receiver was not made by [New];
//  2. [ErrMethodNotAllowed] if the method is not POST;
//  3. [ErrMissingSignature] if [SignatureHeader] is absent or empty, or
//     [ErrMalformedSignature] if it is malformed or appears more than once;
//  4. [*http.MaxBytesError] if the body is longer than MaxBodyBytes, or the
//     error from reading the body, for example if it is truncated;
//  5. [ErrSignatureMismatch] if the signature is not valid under any secret;
//  6. [ErrMalformedPayload] if the body is not JSON, or nested too deeply. Any
//     other JSON is accepted, so that your handler still gets deliveries if
//     Guuru changes a field.
//
// The next handler receives a shallow copy of the request, which shares its
// Header with handlers in front. The copy's context carries the payload (see
// [PayloadFrom]). Its Body yields the signed bytes once more, and its
// ContentLength is their number.
//
// It allocates as bytes arrive, whatever Content-Length says. To limit how long
// reading may take, set [http.Server.ReadTimeout].
func (rc *Receiver) Handler(next http.Handler) http.Handler {
	if rc == nil {
		panic("hmacverify: nil Receiver: check the error of New")
	}
	if next == nil {
		panic("hmacverify: nil handler")
	}
	if f, ok := next.(http.HandlerFunc); ok && f == nil {
		panic("hmacverify: nil handler")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Set before the checks, so that ErrorHandler finds no payload of a
		// Receiver in front.
		p := new(parsed)
		r = r.WithContext(context.WithValue(r.Context(), contextKey{}, p))
		if err := rc.receive(w, r, p); err != nil {
			handleError := rc.ErrorHandler
			if handleError == nil {
				handleError = DefaultErrorHandler
			}
			handleError(w, r, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// receive makes the checks listed at Handler, and sets p. It limits r.Body, and
// replaces it with what it read.
func (rc *Receiver) receive(w http.ResponseWriter, r *http.Request, p *parsed) error {
	if r.Body == nil { // r did not come from a server
		r.Body = http.NoBody
	}
	limit := rc.MaxBodyBytes
	if limit <= 0 {
		limit = DefaultMaxBodyBytes
	}
	r.Body = http.MaxBytesReader(w, r.Body, limit)

	if rc.signers == nil {
		return ErrEmptySecret
	}
	if r.Method != http.MethodPost {
		// The client chooses the length of the method. Log only its beginning.
		return fmt.Errorf("%w: %.20s", ErrMethodNotAllowed, r.Method)
	}
	if n := len(r.Header[SignatureHeader]); n > 1 {
		// Ambiguous: a proxy in front may have checked a different one.
		return fmt.Errorf("%w: %d headers, want 1", ErrMalformedSignature, n)
	}
	mac, err := decode(r.Header.Get(SignatureHeader))
	if err != nil {
		return err
	}
	body, err := readBody(r)
	if err != nil {
		return err
	}
	if err := rc.verifyMAC(body, mac); err != nil {
		// Where the numbers differ, middleware has changed the body. -1: unknown.
		return fmt.Errorf("%w: read %d bytes, Content-Length %d", err, len(body), r.ContentLength)
	}
	if p.payload, p.err = ParsePayload(body); p.payload == nil {
		return p.err
	}
	r.ContentLength = int64(len(body))
	r.TransferEncoding = nil // the length is known
	return nil
}

// readBody reads r.Body, and replaces it with what was read, even on failure.
func readBody(r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	if err != nil {
		// Middleware in front may have set a smaller limit.
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return nil, fmt.Errorf("hmacverify: body over limit of %d bytes: %w", tooLarge.Limit, err)
		}
		return nil, fmt.Errorf("hmacverify: read body: %w", err)
	}
	return body, nil
}

// DefaultErrorHandler logs why a request was rejected and responds to it. It
// logs to [slog.Default], with the request's context:
//
//	WARN rejected err="hmacverify: missing signature" from=192.0.2.1:1234
//
// "from" is the first 100 characters of r.RemoteAddr: behind a proxy, the
// proxy's address. An ErrorHandler that calls it need not log "err".
//
// The response is one line of plain text without a newline. Its status is 500
// for [ErrEmptySecret], 405 (with Allow: POST) for [ErrMethodNotAllowed], 413
// for [*http.MaxBytesError], and 400 otherwise. For a missing, malformed, or
// invalid signature, the text is the one that the samples in Guuru's
// documentation use. The response never contains the text of err.
func DefaultErrorHandler(w http.ResponseWriter, r *http.Request, err error) {
	// Some middleware sets RemoteAddr to a header, which can be long.
	from := fmt.Sprintf("%.100s", r.RemoteAddr)
	slog.WarnContext(r.Context(), "rejected", "err", err, "from", from)
	status, text := http.StatusBadRequest, "Invalid request, unreadable body"
	var tooLarge *http.MaxBytesError
	switch {
	case errors.Is(err, ErrEmptySecret):
		status, text = http.StatusInternalServerError, "Internal Server Error"
	case errors.Is(err, ErrMethodNotAllowed):
		w.Header().Set("Allow", http.MethodPost)
		status, text = http.StatusMethodNotAllowed, "Invalid request, method is not POST"
	case errors.Is(err, ErrMissingSignature), errors.Is(err, ErrMalformedSignature),
		errors.Is(err, ErrSignatureMismatch):
		text = "Invalid request, non-matching HMAC-SHA256 received"
	case errors.As(err, &tooLarge):
		status, text = http.StatusRequestEntityTooLarge, "Invalid request, body is too large"
	case errors.Is(err, ErrMalformedPayload):
		text = "Invalid request, body is not JSON"
	}
	w.Header().Del("Content-Length") // of another body, set in front
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	io.WriteString(w, text) // not http.Error: the samples' text has no newline
}

// Payload is the body of a chat event. Omitted fields are zero, and
// [json.Marshal] omits zero fields. No field identifies a delivery; see
// [DeliveryID]. In the field comments, "examples" are the documented bodies.
type Payload struct {
	ID            string `json:"id,omitzero"` // not in the examples
	User          User   `json:"user,omitzero"`
	Question      string `json:"question,omitzero"` // as the user wrote it
	Status        string `json:"status,omitzero"`   // "rated" in all examples
	Language      string `json:"language,omitzero"` // such as "en"
	TranscriptURL string `json:"transcriptURL,omitzero"`
	Rating        int    `json:"rating,omitzero"`   // 0 if absent; 1 in all examples
	Category      string `json:"category,omitzero"` // such as "general"
	CreatedAt     Millis `json:"createdAt,omitzero"`
	AcceptedAt    Millis `json:"acceptedAt,omitzero"`
	ClosedAt      Millis `json:"closedAt,omitzero"`
	RatedAt       Millis `json:"ratedAt,omitzero"`
}

// User is the person who asked the question.
type User struct {
	Name   string `json:"name,omitzero"`
	Email  string `json:"email,omitzero"`  // "" in all examples
	Locale string `json:"locale,omitzero"` // such as "en"
	IsLead bool   `json:"isLead,omitzero"` // not in the examples
	IsUser bool   `json:"isUser,omitzero"` // not in the examples
}

// Millis is a time in milliseconds since the Unix epoch. It is 0 if the time is
// absent.
type Millis int64

// Time returns m in UTC. For 0, it returns the zero Time, so that IsZero
// reports an absent time.
func (m Millis) Time() time.Time {
	if m == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(m)).UTC()
}

// ParsePayload decodes a body. Verify it first, or let [Receiver.Handler] do
// both. If body is not JSON, or nested too deeply, ParsePayload returns nil and
// an error that wraps [ErrMalformedPayload] and the one from encoding/json.
//
// If the body or a field has an unexpected type, ParsePayload sets the other
// fields and returns the payload together with an error that wraps
// [*json.UnmarshalTypeError]. Numbers such as 4.0 and 1.5e12 do not fit an
// integer field. As always in encoding/json, unknown fields are ignored, names
// match in any case, and invalid UTF-8 becomes U+FFFD. null and {} give an
// empty Payload and no error.
func ParsePayload(body []byte) (*Payload, error) {
	p := new(Payload)
	err := json.Unmarshal(body, p)
	if err == nil {
		return p, nil
	}
	var typeErr *json.UnmarshalTypeError
	if errors.As(err, &typeErr) {
		return p, fmt.Errorf("hmacverify: unexpected payload structure: %w", err)
	}
	return nil, fmt.Errorf("%w: %w", ErrMalformedPayload, err)
}

// PayloadFrom returns the payload of the verified request that ctx belongs to,
// as [ParsePayload] returned it. If the error wraps [*json.UnmarshalTypeError],
// the body or some fields have an unexpected type: the payload may lack them,
// and the error names only the first. Do not act on their zeros. The raw bytes
// are still in the request's Body.
//
// With [ErrNoPayload], the payload is nil, and ctx belongs to no verified
// request: do not trust the Body. No [Receiver.Handler] called the handler, ctx
// is not the request's, or the request was rejected.
//
// All calls for a request return the same pointer. Do not modify the payload
// while other goroutines use it.
func PayloadFrom(ctx context.Context) (*Payload, error) {
	p, ok := ctx.Value(contextKey{}).(*parsed)
	if !ok || p.payload == nil {
		return nil, ErrNoPayload
	}
	return p.payload, p.err
}

type contextKey struct{}

// parsed is the value of contextKey: what ParsePayload returned. The payload is
// nil unless the request is verified.
type parsed struct {
	payload *Payload
	err     error
}

// DeliveryID returns a key for detecting duplicates and replays: the event, or
// "unknown" for a name that is no Event constant, a hyphen, and sig. A
// redelivery has the same key, whatever its Idempotency-Key, unless the secret
// was rotated. Two deliveries of one event with equal bodies have the same key.
//
// The event is not signed, so a replay under another name gets another key, at
// most eight per signature: act on chat-rated only if the status is "rated", as
// in all documented bodies.
//
// The key has at most 81 characters and is safe as a file name. DeliveryID
// panics if sig is not 64 lowercase hex digits: verify it first.
func DeliveryID(event, sig string) string {
	if _, err := decode(sig); err != nil {
		panic("hmacverify: DeliveryID(event, sig): sig is not 64 lowercase hex digits: " +
			"it was not verified before, or the arguments are swapped")
	}
	switch event {
	case EventChatAssigned, EventChatOpened, EventChatClosed, EventChatReopened,
		EventChatTransferred, EventChatRated, EventMessageCreated:
		return event + "-" + sig
	}
	return "unknown-" + sig
}
