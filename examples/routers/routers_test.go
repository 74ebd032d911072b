// Package routers tests that only requests with a valid signature reach deliver,
// a handler written for each router.
package routers

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/go-chi/chi/v5"
	fiberv2 "github.com/gofiber/fiber/v2"
	adaptorv2 "github.com/gofiber/fiber/v2/middleware/adaptor"
	"github.com/gofiber/fiber/v3"
	"github.com/gofiber/fiber/v3/middleware/adaptor"
	"github.com/gorilla/mux"
	echov4 "github.com/labstack/echo/v4"
	"github.com/labstack/echo/v5"

	"example.com/hmacverify"
)

// verify is middleware for gin. The handlers after it run only for requests with
// a valid signature. The payload is in c.Request.Context().
func verify(rc *hmacverify.Receiver) gin.HandlerFunc {
	return func(c *gin.Context) {
		verified := false
		rc.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			c.Request, verified = r, true
		})).ServeHTTP(c.Writer, c.Request)
		if !verified {
			c.Abort()
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

var runs int // of deliver

func text(p *hmacverify.Payload, err error, body []byte) string {
	runs++
	return must(p, err).Question + string(body)
}

func deliver(w http.ResponseWriter, r *http.Request) {
	p, err := hmacverify.PayloadFrom(r.Context())
	io.WriteString(w, text(p, err, must(io.ReadAll(r.Body))))
}

// check sends requests to a server. With dropsFirst, only the last of several
// signature headers reaches the Receiver, so a doubled signature is accepted.
func check(t *testing.T, url string, dropsFirst bool) {
	body := string(must(os.ReadFile("../../testdata/example3.json")))
	sig := string(must(os.ReadFile("../../testdata/example3.sig")))
	const rejected = "400 Invalid request, non-matching HMAC-SHA256 received"
	accepted, doubled := "200 hello 123"+body, rejected
	if dropsFirst {
		doubled = accepted
	}
	for _, tc := range []struct{ kind, body, sigs, want string }{
		{"authentic", body, sig, accepted},
		{"unsigned", body, "", rejected},
		{"forged", body + " ", sig, rejected},
		{"malformed signature", body, "sha256=" + sig, rejected},
		{"doubled signature", body, sig + " " + sig, doubled},
		{"doubled signature, the last wrong", body, sig + " wrong", rejected},
	} {
		runs = 0
		r := must(http.NewRequest("POST", url+"/guuru", strings.NewReader(tc.body)))
		r.Header[hmacverify.SignatureHeader] = strings.Fields(tc.sigs)
		resp := must((&http.Client{Transport: &http.Transport{}}).Do(r)) // no proxy
		got := fmt.Sprintf("%d %s", resp.StatusCode, must(io.ReadAll(resp.Body)))
		if got != tc.want || runs != strings.Count(tc.want, "200 ") {
			t.Errorf("%s: got %q after %d runs of deliver, want %q", tc.kind, got, runs, tc.want)
		}
	}
}

func TestRouters(t *testing.T) {
	rc := must(hmacverify.New("secr3t"))
	t.Run("net/http", func(t *testing.T) {
		mux := http.NewServeMux()
		mux.Handle("/guuru", rc.Handler(http.HandlerFunc(deliver)))
		check(t, httptest.NewServer(mux).URL, false)
	})
	t.Run("chi", func(t *testing.T) {
		r := chi.NewRouter()
		r.With(rc.Handler).Post("/guuru", deliver)
		check(t, httptest.NewServer(r).URL, false)
	})
	t.Run("gorilla/mux", func(t *testing.T) {
		r := mux.NewRouter()
		r.Handle("/guuru", rc.Handler(http.HandlerFunc(deliver)))
		check(t, httptest.NewServer(r).URL, false)
	})
	t.Run("echo", func(t *testing.T) {
		deliver := func(c *echo.Context) error {
			p, err := hmacverify.PayloadFrom(c.Request().Context())
			return c.String(200, text(p, err, must(io.ReadAll(c.Request().Body))))
		}
		e := echo.New()
		e.POST("/guuru", deliver, echo.WrapMiddleware(rc.Handler))
		check(t, httptest.NewServer(e).URL, false)
	})
	t.Run("echo v4", func(t *testing.T) {
		deliver := func(c echov4.Context) error {
			p, err := hmacverify.PayloadFrom(c.Request().Context())
			return c.String(200, text(p, err, must(io.ReadAll(c.Request().Body))))
		}
		e := echov4.New()
		e.POST("/guuru", deliver, echov4.WrapMiddleware(rc.Handler))
		check(t, httptest.NewServer(e).URL, false)
	})
	t.Run("gin", func(t *testing.T) {
		deliver := func(c *gin.Context) {
			if _, err := hmacverify.PayloadFrom(c); err != hmacverify.ErrNoPayload {
				t.Errorf("PayloadFrom(c): got %v, want ErrNoPayload", err)
			}
			p, err := hmacverify.PayloadFrom(c.Request.Context())
			c.String(200, text(p, err, must(io.ReadAll(c.Request.Body))))
		}
		g := gin.New()
		g.POST("/guuru", verify(rc), deliver)
		check(t, httptest.NewServer(g).URL, false)
		runs = 0
		forged := func(*gin.Context) { runs++ }
		g.POST("/trap", gin.WrapH(rc.Handler(http.NotFoundHandler())), forged)
		g.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/trap", nil))
		if runs != 1 { // the README warns of this
			t.Errorf("after a rejection in gin.WrapH: got %d runs, want 1", runs)
		}
	})
	t.Run("fiber", func(t *testing.T) {
		deliver := func(c fiber.Ctx) error {
			if _, err := hmacverify.PayloadFrom(c.RequestCtx()); err != nil {
				t.Errorf("PayloadFrom(c.RequestCtx()): got %v, want nil", err)
			}
			if _, err := hmacverify.PayloadFrom(c.Context()); err != hmacverify.ErrNoPayload {
				t.Errorf("PayloadFrom(c.Context()): got %v, want ErrNoPayload", err)
			}
			p, err := hmacverify.ParsePayload(c.BodyRaw()) // Body may decompress
			return c.SendString(text(p, err, c.BodyRaw()))
		}
		app := fiber.New()
		app.Post("/guuru", adaptor.HTTPMiddleware(rc.Handler), deliver)
		listener := must(net.Listen("tcp", "127.0.0.1:0"))
		go app.Listener(listener, fiber.ListenConfig{DisableStartupMessage: true})
		check(t, "http://"+listener.Addr().String(), true)
	})
	t.Run("fiber v2", func(t *testing.T) {
		deliver := func(c *fiberv2.Ctx) error {
			if _, err := hmacverify.PayloadFrom(c.Context()); err != nil {
				t.Errorf("PayloadFrom(c.Context()): got %v, want nil", err)
			}
			if _, err := hmacverify.PayloadFrom(c.UserContext()); err != hmacverify.ErrNoPayload {
				t.Errorf("PayloadFrom(c.UserContext()): got %v, want ErrNoPayload", err)
			}
			p, err := hmacverify.ParsePayload(c.BodyRaw())
			return c.SendString(text(p, err, c.BodyRaw()))
		}
		app := fiberv2.New(fiberv2.Config{DisableStartupMessage: true})
		app.Post("/guuru", adaptorv2.HTTPMiddleware(rc.Handler), deliver)
		listener := must(net.Listen("tcp", "127.0.0.1:0"))
		go app.Listener(listener)
		check(t, "http://"+listener.Addr().String(), true)
	})
}
