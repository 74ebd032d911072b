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
	"net/http"
	"sync"
	"time"
)

// Receiver lets signed webhooks through to a handler, and nothing else. Make one
// with [New], wrap the handler with [Receiver.Handler], and find the payload with
// [PayloadFrom].
//
// The zero Receiver and a nil one have no secret and accept nothing. A Receiver
// is safe for concurrent use once its fields are set. Printing one shows no secret.
type Receiver struct {
	// MaxBodyBytes is the length in bytes of the longest body that is accepted:
	// DefaultMaxBodyBytes when zero or less.
	MaxBodyBytes int64

	// ErrorHandler answers a request that was refused: DefaultErrorHandler when
	// nil. It has to write the answer: if it writes none, net/http says 200, and
	// the sender takes the delivery for done. The part of the body that was read
	// is not in r.Body any more.
	ErrorHandler func(w http.ResponseWriter, r *http.Request, err error)

	keys []*sync.Pool // of *keyedMAC, one pool for each secret; empty: accept nothing
}

// DefaultMaxBodyBytes is the limit on the body, 1 MiB, of a [Receiver] that does
// not set one. The documented bodies have under 500 bytes.
const DefaultMaxBodyBytes = 1 << 20

// The reasons to refuse a request besides those of [Verify], and the one that
// [PayloadFrom] gives, to be told apart with [errors.Is].
var (
	// ErrMethodNotAllowed means that the request's method is not POST.
	ErrMethodNotAllowed = errors.New("hmacverify: method not allowed")

	// ErrMalformedPayload means that an authentic body is not JSON. The error that
	// a Receiver reports wraps encoding/json's as well.
	ErrMalformedPayload = errors.New("hmacverify: malformed payload")

	// ErrNoPayload means that the context is not of a request that came through a
	// Receiver.
	ErrNoPayload = errors.New("hmacverify: no payload in context")
)

// New returns a Receiver that accepts a body signed with any of secrets. To change
// the secret without losing a delivery, give the new and the old one until the
// last delivery signed with the old one has arrived. The likelier one comes first:
// they are tried in order.
//
// Without a secret, or with an empty one among them, New returns nil and
// [ErrEmptySecret]: a missing environment variable stops the service at its start
// instead of opening it. In FIPS 140-only mode, New returns an error for a secret
// that crypto/hmac does not allow as a key, one shorter than 14 bytes.
func New(secrets ...string) (*Receiver, error) {
	if len(secrets) == 0 {
		return nil, ErrEmptySecret
	}
	rc := &Receiver{keys: make([]*sync.Pool, len(secrets))}
	for i, secret := range secrets {
		if _, err := newMAC(secret); err != nil {
			return nil, err
		}
		rc.keys[i] = &sync.Pool{New: func() any {
			return &keyedMAC{Hash: hmac.New(sha256.New, []byte(secret))}
		}}
	}
	return rc, nil
}

// A keyedMAC is an HMAC that is keyed once and used for many bodies: Reset brings
// back the keyed state. With the room for its sum beside it, a check allocates
// nothing.
type keyedMAC struct {
	hash.Hash
	sum [sha256.Size]byte
}

// Verify is the function [Verify], tried with each of the receiver's secrets, for bodies that do not
// come over net/http: from a queue, or as a function's event. It returns the same
// errors, [ErrEmptySecret] if the receiver has no secret. It is faster than the
// function, and does not allocate.
//
// There is no limit on the body here: the caller holds it in memory already.
func (rc *Receiver) Verify(body []byte, sig string) error {
	if rc == nil || len(rc.keys) == 0 {
		return ErrEmptySecret
	}
	tag, err := parseSignature(sig)
	if err != nil {
		return err
	}
	return rc.verify(body, tag)
}

func (rc *Receiver) verify(body []byte, tag [sha256.Size]byte) error {
	for _, macs := range rc.keys {
		mac := macs.Get().(*keyedMAC)
		mac.Reset()
		mac.Write(body)
		ok := hmac.Equal(mac.Sum(mac.sum[:0]), tag[:])
		macs.Put(mac)
		if ok {
			return nil
		}
	}
	return ErrSignatureMismatch
}

// Handler returns a handler that passes the authentic requests on to next and
// answers the others through ErrorHandler. As a method value, rc.Handler is the
// middleware that routers take.
//
// A request is refused, in this order,
//
//   - with [ErrMethodNotAllowed] if its method is not POST;
//   - with [ErrMissingSignature] if it has no [SignatureHeader] or an empty one,
//     with [ErrMalformedSignature] if it has several or one that is malformed, and
//     with [ErrEmptySecret] if the receiver has no secret: all these before a byte
//     of the body is read;
//   - with an error that wraps [*http.MaxBytesError] if the body is longer than
//     MaxBodyBytes, and one that wraps the error of reading if it breaks off;
//   - with [ErrSignatureMismatch] if no secret gives the signature;
//   - with an error that wraps [ErrMalformedPayload] and that of encoding/json if
//     the body is not JSON.
//
// JSON of any structure passes (see [PayloadFrom]), nested up to the 10,000 levels
// that encoding/json takes. What next gets is a copy of the request. Its context
// carries the payload, its Body gives the signed bytes once more, and its
// ContentLength is their number, whether the sender announced it or not.
//
// The body is held in memory while next runs; the memory follows the bytes that
// have arrived, not the length that was announced. How long a client may take is
// for the server to limit: set ReadHeaderTimeout and ReadTimeout of [http.Server].
func (rc *Receiver) Handler(next http.Handler) http.Handler {
	if rc == nil {
		rc = new(Receiver)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		accepted, err := rc.receive(w, r)
		if err == nil {
			next.ServeHTTP(w, accepted)
			return
		}
		refuse := rc.ErrorHandler
		if refuse == nil {
			refuse = DefaultErrorHandler
		}
		refuse(w, r, err)
	})
}

// receive checks r and returns the request for the handler behind.
func (rc *Receiver) receive(w http.ResponseWriter, r *http.Request) (*http.Request, error) {
	if r.Method != http.MethodPost {
		return nil, ErrMethodNotAllowed
	}
	sigs := r.Header[SignatureHeader]
	if len(sigs) == 0 {
		return nil, ErrMissingSignature
	}
	if len(sigs) > 1 {
		// Which one counts? A proxy or a log may answer otherwise than this program.
		return nil, ErrMalformedSignature
	}
	tag, err := parseSignature(sigs[0])
	if err != nil {
		return nil, err
	}
	if len(rc.keys) == 0 {
		return nil, ErrEmptySecret
	}

	limit := rc.MaxBodyBytes
	if limit <= 0 {
		limit = DefaultMaxBodyBytes
	}
	var body []byte
	if r.Body != nil { // nil only in a request that was not made by a server
		body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
		if err != nil {
			return nil, fmt.Errorf("hmacverify: reading the body: %w", err)
		}
	}
	if err := rc.verify(body, tag); err != nil {
		return nil, err
	}

	d := new(delivery)
	if err := json.Unmarshal(body, &d.payload); err != nil {
		var mismatch *json.UnmarshalTypeError
		if !errors.As(err, &mismatch) {
			return nil, fmt.Errorf("%w: %w", ErrMalformedPayload, err)
		}
		d.err = fmt.Errorf("hmacverify: payload of another structure: %w", err)
	}
	d.Reset(body)
	accepted := r.WithContext(context.WithValue(r.Context(), contextKey{}, d))
	accepted.Body = d
	accepted.ContentLength = int64(len(body))
	accepted.TransferEncoding = nil // the body has a length now
	return accepted, nil
}

// A delivery is what the handler behind gets, in one allocation: the payload in
// the request's context, and the request's body.
type delivery struct {
	payload Payload
	err     error // of decoding payload
	bytes.Reader
}

// Close makes a delivery an [io.ReadCloser]. There is nothing to close.
func (*delivery) Close() error { return nil }

type contextKey struct{}

// DefaultErrorHandler answers a refused request with one line of plain text,
// without a newline at its end, and one of these statuses:
//
//   - 405, with Allow: POST, for [ErrMethodNotAllowed];
//   - 413 for [*http.MaxBytesError];
//   - 500 for [ErrEmptySecret], which is the receiver's fault, not the sender's;
//   - 400 for everything else. For a signature that is missing, malformed or does
//     not match, the text is the one that Guuru's documented receivers answer.
//
// No secret, no computed signature and no text of err is in the answer.
func DefaultErrorHandler(w http.ResponseWriter, r *http.Request, err error) {
	status, text := http.StatusBadRequest, "Invalid request, unreadable body"
	var tooLarge *http.MaxBytesError
	switch {
	case errors.Is(err, ErrMissingSignature), errors.Is(err, ErrMalformedSignature), errors.Is(err, ErrSignatureMismatch):
		text = "Invalid request, non-matching HMAC-SHA256 received"
	case errors.Is(err, ErrMalformedPayload):
		text = "Invalid request, body is not JSON"
	case errors.Is(err, ErrMethodNotAllowed):
		w.Header().Set("Allow", http.MethodPost)
		status, text = http.StatusMethodNotAllowed, "Invalid request, method is not POST"
	case errors.As(err, &tooLarge):
		status, text = http.StatusRequestEntityTooLarge, "Invalid request, body is too large"
	case errors.Is(err, ErrEmptySecret):
		status, text = http.StatusInternalServerError, "Receiver has no secret"
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	io.WriteString(w, text)
}

// PayloadFrom returns the payload of a request that came through
// [Receiver.Handler], given the request's context.
//
// Fields of the body that Payload does not have are passed over. Where one that it
// has is of another type, as may be in an event with a structure of its own,
// PayloadFrom returns the payload with the other fields filled in, together with an
// error that wraps [*json.UnmarshalTypeError]; decode the request's Body into a type
// of your own then. No error does not mean a chat: a body with none of the fields
// gives a zero Payload, so look at [EventHeader] first. Without a Receiver in front,
// the payload is nil and the error [ErrNoPayload].
//
// Each call with the same request's context returns the same pointer. PayloadFrom is
// safe for concurrent use; to change what it points to is not.
func PayloadFrom(ctx context.Context) (*Payload, error) {
	d, ok := ctx.Value(contextKey{}).(*delivery)
	if !ok {
		return nil, ErrNoPayload
	}
	return &d.payload, d.err
}

// Payload is the body of a chat's event. Guuru leaves out what has no value, and so
// does [json.Marshal]: a field without a value is zero here.
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

// User is the person who asked in a chat.
type User struct {
	Name   string `json:"name,omitzero"`
	Email  string `json:"email,omitzero"`
	Locale string `json:"locale,omitzero"`
	IsLead bool   `json:"isLead,omitzero"`
	IsUser bool   `json:"isUser,omitzero"`
}

// Millis is a time in milliseconds since the Unix epoch; 0 when the payload has no
// such time.
type Millis int64

// Time returns m in UTC, and the zero [time.Time] for 0, so that IsZero tells a time
// that is missing.
func (m Millis) Time() time.Time {
	if m == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(m)).UTC()
}

// The request headers that come with a delivery. The signature covers neither: see
// the package comment.
const (
	// EventHeader names the event.
	EventHeader = "X-Guuru-Event"

	// IdempotencyKeyHeader carries a key that a repeated delivery has in common with
	// the first one.
	IdempotencyKeyHeader = "Idempotency-Key"
)

// The events, as [EventHeader] names them. An older version of Guuru's page spelled
// two of them chatTransferred and chatRated.
const (
	EventChatAssigned    = "chat-assigned" // offered to experts
	EventChatOpened      = "chat-opened"   // an expert took it
	EventChatClosed      = "chat-closed"   // a chat-rated follows later
	EventChatReopened    = "chat-reopened"
	EventChatTransferred = "chat-transferred" // handed to the company's staff; a chat-rated follows later
	EventChatRated       = "chat-rated"
	EventMessageCreated  = "message-created" // of a structure that is not documented
)
