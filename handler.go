package hmacverify

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Request headers besides [SignatureHeader]. They are not signed.
const (
	EventHeader          = "X-Guuru-Event"   // names the event
	IdempotencyKeyHeader = "Idempotency-Key" // for detecting duplicates
)

// Values of [EventHeader].
const (
	EventChatAssigned    = "chat-assigned"    // offered to experts
	EventChatOpened      = "chat-opened"      // taken by an expert
	EventChatClosed      = "chat-closed"      // a chat-rated follows
	EventChatReopened    = "chat-reopened"    // opened again
	EventChatTransferred = "chat-transferred" // to your own staff; a chat-rated follows
	EventChatRated       = "chat-rated"       // rated by the user
	EventMessageCreated  = "message-created"  // may not have the fields of Payload
)

// DefaultMaxBodyBytes is 1 MiB. The bodies in Guuru's documentation are under
// 500 bytes.
const DefaultMaxBodyBytes = 1 << 20

// More reasons to reject a request, and an error from [PayloadFrom].
var (
	// ErrMethodNotAllowed means that the method is not POST.
	ErrMethodNotAllowed = errors.New("hmacverify: method not allowed")
	// ErrMalformedPayload means that the body is not JSON. The error from
	// encoding/json is wrapped with it.
	ErrMalformedPayload = errors.New("hmacverify: malformed payload")
	// ErrNoPayload means that the request did not come through a [Receiver].
	ErrNoPayload = errors.New("hmacverify: no payload in context")
)

// A Receiver passes a request on only if its signature is valid for its body:
//
//	rc, err := hmacverify.New(os.Getenv("GUURU_SECRET"))
//	if err != nil {
//		log.Fatal(err)
//	}
//	http.Handle("/guuru", rc.Handler(http.HandlerFunc(deliver)))
//
// To log rejected requests, see the ErrorHandler example. The next handler
// should respond with 200 to events that it ignores, and with 500 only if it
// cannot process one:
//
//	func deliver(w http.ResponseWriter, r *http.Request) {
//		switch event := r.Header.Get(hmacverify.EventHeader); event {
//		case hmacverify.EventChatRated:
//			p, err := hmacverify.PayloadFrom(r.Context())
//			if err != nil {
//				slog.Error("payload not decoded", "event", event, "err", err,
//					"signature", r.Header.Get(hmacverify.SignatureHeader))
//				http.Error(w, "payload not decoded", http.StatusInternalServerError)
//				return
//			}
//			slog.Info(event, "user", p.User.Name, "rating", p.Rating)
//		default:
//			slog.Info("ignored", "event", event)
//		}
//		io.WriteString(w, "Success!")
//	}
//
// The zero Receiver has no secret and rejects everything. A Receiver is safe
// for concurrent use once its fields are set. Printing it reveals no secret.
type Receiver struct {
	// MaxBodyBytes limits the length of the body. Zero or less means
	// DefaultMaxBodyBytes.
	MaxBodyBytes int64

	// ErrorHandler responds to rejected requests. Nil means
	// DefaultErrorHandler. It must write a response; otherwise net/http sends
	// 200 OK and Guuru considers the delivery accepted. The rest of the body
	// may still be in r.Body, which has no limit. To read it, use
	// http.MaxBytesReader.
	ErrorHandler func(w http.ResponseWriter, r *http.Request, err error)

	macs []*sync.Pool // of *keyedMAC; one for each secret
}

// New returns a Receiver that accepts a body signed with any of secrets, which
// are tried in order. To rotate the secret, pass the new and the previous one
// until no more deliveries are signed with the previous one.
//
// If there are no secrets, or if any is empty, New returns nil and an error
// that wraps [ErrEmptySecret]. A secret that ends in a line break is also an
// error: most likely it was read from a file with its trailing newline, and no
// delivery would match it. In FIPS 140-only mode, New panics if a secret is
// shorter than 14 bytes, as crypto/hmac does.
func New(secrets ...string) (*Receiver, error) {
	if len(secrets) == 0 {
		return nil, ErrEmptySecret
	}
	if i := slices.Index(secrets, ""); i >= 0 {
		return nil, fmt.Errorf("%w (%d of %d)", ErrEmptySecret, i+1, len(secrets))
	}
	rc := new(Receiver)
	for i, secret := range secrets {
		if strings.HasSuffix(secret, "\n") || strings.HasSuffix(secret, "\r") {
			return nil, fmt.Errorf("hmacverify: secret %d of %d ends in a line break", i+1, len(secrets))
		}
		rc.macs = append(rc.macs, newMACs(secret))
	}
	return rc, nil
}

// newMACs returns a pool of HMACs keyed with secret. It makes the first one at
// once, so that a short key in FIPS 140-only mode panics in New.
func newMACs(secret string) *sync.Pool {
	newMAC := func() any { return &keyedMAC{Hash: hmac.New(sha256.New, []byte(secret))} }
	pool := &sync.Pool{New: newMAC}
	pool.Put(newMAC())
	return pool
}

// A keyedMAC signs many bodies. It is keyed once and reuses the memory for its
// results.
type keyedMAC struct {
	hash.Hash
	sum [sha256.Size]byte
	hex [2 * sha256.Size]byte
}

// sign returns the signature of body. The next call overwrites it.
func (m *keyedMAC) sign(body []byte) []byte {
	m.Reset() // to the keyed state
	m.Write(body)
	hex.Encode(m.hex[:], m.Sum(m.sum[:0]))
	return m.hex[:]
}

// Verify is like the function [Verify], but accepts a signature made with any
// of the receiver's secrets. Use it for bodies that do not arrive over
// net/http, such as those from a queue. On a nil or zero Receiver, it returns
// [ErrEmptySecret]. It is faster than the function for short bodies, and
// normally does not allocate if sig has the right format.
func (rc *Receiver) Verify(body []byte, sig string) error {
	if rc == nil || len(rc.macs) == 0 {
		return ErrEmptySecret
	}
	for _, pool := range rc.macs {
		mac := pool.Get().(*keyedMAC)
		valid := hmac.Equal(mac.sign(body), []byte(sig))
		pool.Put(mac)
		if valid {
			return nil
		}
	}
	return cmp.Or(checkFormat(sig), ErrSignatureMismatch)
}

// Handler returns a handler that passes valid requests to next and all others
// to ErrorHandler. It panics if rc or next is nil. The method value rc.Handler
// is middleware for routers. A rejection has the first error that applies:
//
//   - [ErrEmptySecret] if the Receiver was not made by [New];
//   - [ErrMethodNotAllowed] if the method is not POST;
//   - [ErrMissingSignature] if [SignatureHeader] is absent or empty;
//   - [ErrMalformedSignature] if it is malformed or appears more than once;
//   - [*http.MaxBytesError] if the body is longer than MaxBodyBytes;
//   - the error from reading the body, for example if it is truncated;
//   - [ErrSignatureMismatch] if the signature is not valid under any secret;
//   - [ErrMalformedPayload] if the body is not JSON, or is nested deeper than
//     encoding/json supports. Any other JSON is accepted.
//
// The next handler receives a copy of the request. Its context carries the
// payload (see [PayloadFrom]), its Body yields the signed bytes again, and its
// ContentLength is the number of those bytes.
//
// Handler buffers the body as it arrives and never allocates by Content-Length.
// To limit the time for that, set the timeouts of [http.Server].
func (rc *Receiver) Handler(next http.Handler) http.Handler {
	if rc == nil {
		panic("hmacverify: nil Receiver")
	}
	if f, ok := next.(http.HandlerFunc); next == nil || ok && f == nil {
		panic("hmacverify: nil handler")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := rc.authenticate(w, r)
		if err != nil {
			rc.reject(w, r, err)
			return
		}
		p, err := ParsePayload(body)
		if errors.Is(err, ErrMalformedPayload) {
			rc.reject(w, r, err)
			return
		}
		next.ServeHTTP(w, accepted(r, body, parsed{p, err}))
	})
}

// authenticate returns the body of r if its signature is valid.
func (rc *Receiver) authenticate(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if len(rc.macs) == 0 {
		return nil, ErrEmptySecret
	}
	if r.Method != http.MethodPost {
		return nil, ErrMethodNotAllowed
	}
	sig, err := signature(r.Header)
	if err != nil {
		return nil, err
	}
	body, err := rc.readBody(w, r)
	if err != nil {
		return nil, err
	}
	if err := rc.Verify(body, sig); err != nil {
		return nil, describe(err, r, body)
	}
	return body, nil
}

func signature(h http.Header) (string, error) {
	sigs := h[SignatureHeader]
	if len(sigs) == 0 {
		return "", ErrMissingSignature
	}
	if len(sigs) > 1 {
		// Ambiguous: a proxy in front may have checked a different one.
		return "", fmt.Errorf("%w: %d headers, want 1", ErrMalformedSignature, len(sigs))
	}
	return sigs[0], checkFormat(sigs[0])
}

func (rc *Receiver) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.Body == nil { // r did not come from a server
		return nil, nil
	}
	limit := rc.MaxBodyBytes
	if limit <= 0 {
		limit = DefaultMaxBodyBytes
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		return nil, fmt.Errorf("hmacverify: read body, MaxBodyBytes %d: %w", limit, err)
	}
	return body, nil
}

// describe adds the length of the body to err. A length other than
// Content-Length shows that earlier middleware has read or changed the body,
// which would otherwise look like a forgery.
func describe(err error, r *http.Request, body []byte) error {
	err = fmt.Errorf("%w: read %d bytes of body", err, len(body))
	if r.ContentLength >= 0 && r.ContentLength != int64(len(body)) {
		err = fmt.Errorf("%w, Content-Length %d", err, r.ContentLength)
	}
	return err
}

func (rc *Receiver) reject(w http.ResponseWriter, r *http.Request, err error) {
	handle := rc.ErrorHandler
	if handle == nil {
		handle = DefaultErrorHandler
	}
	handle(w, r, err)
}

// accepted returns a copy of r for the next handler.
func accepted(r *http.Request, body []byte, p parsed) *http.Request {
	r = r.WithContext(context.WithValue(r.Context(), contextKey{}, p))
	r.Body = &signedBody{*bytes.NewReader(body)}
	r.ContentLength = int64(len(body))
	r.TransferEncoding = nil // the length is known
	return r
}

// A signedBody has only the methods of an io.ReadCloser.
type signedBody struct{ r bytes.Reader }

func (b *signedBody) Read(p []byte) (int, error) { return b.r.Read(p) }
func (b *signedBody) Close() error               { return nil }

// parsed is what ParsePayload returned. It is stored in the context under
// contextKey.
type parsed struct {
	payload *Payload
	err     error
}

type contextKey struct{}

// DefaultErrorHandler responds to a rejected request with a line of plain text.
// The status is 500 for [ErrEmptySecret], 405 for [ErrMethodNotAllowed], 413
// for [*http.MaxBytesError], and 400 otherwise. For a missing, malformed, or
// invalid signature, the text is the one that the samples in Guuru's
// documentation use. The response never contains the text of err; log it
// instead.
func DefaultErrorHandler(w http.ResponseWriter, r *http.Request, err error) {
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
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	io.WriteString(w, text)
}

// Payload is the body of a chat event. Guuru may omit fields without a value.
// They are zero here, and [json.Marshal] omits them, too.
type Payload struct {
	ID            string `json:"id,omitzero"`
	User          User   `json:"user,omitzero"`
	Question      string `json:"question,omitzero"`
	Status        string `json:"status,omitzero"`
	Language      string `json:"language,omitzero"`
	TranscriptURL string `json:"transcriptURL,omitzero"`
	Rating        int    `json:"rating,omitzero"`
	Category      string `json:"category,omitzero"`
	CreatedAt     Millis `json:"createdAt,omitzero"`
	AcceptedAt    Millis `json:"acceptedAt,omitzero"`
	ClosedAt      Millis `json:"closedAt,omitzero"`
	RatedAt       Millis `json:"ratedAt,omitzero"`
}

// User is the person who asked the question.
type User struct {
	Name   string `json:"name,omitzero"`
	Email  string `json:"email,omitzero"`
	Locale string `json:"locale,omitzero"`
	IsLead bool   `json:"isLead,omitzero"`
	IsUser bool   `json:"isUser,omitzero"`
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

// ParsePayload decodes a body. [Receiver.Handler] calls it. For bodies from
// elsewhere, call it after [Verify]. If body is not JSON, ParsePayload returns
// nil and an error that wraps [ErrMalformedPayload] and the error from
// encoding/json.
//
// Schema changes do not block deliveries. Unknown fields are ignored. If the
// body or a field has an unexpected type, ParsePayload sets the other fields
// and returns the payload together with an error that wraps
// [*json.UnmarshalTypeError]. A nil error does not prove that the body
// described a chat: the payload may be zero.
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

// PayloadFrom returns what [ParsePayload] returned for the request that ctx
// belongs to. If the error wraps [*json.UnmarshalTypeError], the signature is
// valid, and the request's Body still has the raw bytes. If the request did not
// pass through [Receiver.Handler], PayloadFrom returns nil and [ErrNoPayload].
//
// All calls for a request return the same pointer. Do not modify the payload
// while other goroutines use it.
func PayloadFrom(ctx context.Context) (*Payload, error) {
	p, ok := ctx.Value(contextKey{}).(parsed)
	if !ok {
		return nil, ErrNoPayload
	}
	return p.payload, p.err
}
