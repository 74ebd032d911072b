package integration

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/go-chi/chi/v5"
	"github.com/gorilla/mux"
	"github.com/justinas/alice"
	"github.com/labstack/echo/v4"

	"example.com/hmacverify"
)

// verify is gin middleware: the handlers after it run only for requests with a
// valid signature.
func verify(rc *hmacverify.Receiver) gin.HandlerFunc {
	return func(c *gin.Context) {
		verified := false
		rc.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			verified = true
			c.Request = r
			c.Next()
		})).ServeHTTP(c.Writer, c.Request)
		if !verified {
			c.Abort()
		}
	}
}

// question returns the question and the body of a request that passed through a
// Receiver.
func question(r *http.Request) (string, error) {
	p, err := hmacverify.PayloadFrom(r.Context())
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(r.Body)
	return p.Question + "\n" + string(body), err
}

// routers returns a router of each kind. At /guuru, a handler of the router's
// type calls ran and responds with the question and the body.
func routers(rc *hmacverify.Receiver, ran func()) map[string]http.Handler {
	all := make(map[string]http.Handler)
	deliver := func(w http.ResponseWriter, r *http.Request) {
		ran()
		text, err := question(r)
		if err != nil {
			text = err.Error()
		}
		io.WriteString(w, text)
	}
	{
		mux := http.NewServeMux()
		mux.Handle("/guuru", rc.Handler(http.HandlerFunc(deliver)))
		all["net/http"] = mux
	}
	{
		r := chi.NewRouter()
		r.With(rc.Handler).Post("/guuru", deliver)
		all["chi"] = r
	}
	{
		r := mux.NewRouter()
		r.Handle("/guuru", rc.Handler(http.HandlerFunc(deliver)))
		all["gorilla/mux"] = r
	}
	{
		mux := http.NewServeMux()
		mux.Handle("/guuru", alice.New(rc.Handler).ThenFunc(deliver))
		all["alice"] = mux
	}
	{
		deliver := func(c echo.Context) error {
			ran()
			text, err := question(c.Request())
			if err != nil {
				return err
			}
			return c.String(http.StatusOK, text)
		}
		e := echo.New()
		e.POST("/guuru", deliver, echo.WrapMiddleware(rc.Handler))
		all["echo"] = e
	}
	{
		deliver := func(c *gin.Context) {
			ran()
			text, err := question(c.Request)
			if err != nil {
				c.AbortWithError(http.StatusInternalServerError, err)
				return
			}
			c.String(http.StatusOK, text)
		}
		gin.SetMode(gin.ReleaseMode)
		g := gin.New()
		g.POST("/guuru", verify(rc), deliver)
		all["gin"] = g
	}
	return all
}

func TestRouters(t *testing.T) {
	body, sig := documented(t, "1")
	const rejected = "400 Invalid request, non-matching HMAC-SHA256 received"
	const asked = "My router lights are all yellow and blinking and I can't connect to the Internet from my laptop, what can I do?"
	runs := 0
	for name, router := range routers(newReceiver(t), func() { runs++ }) {
		server := httptest.NewServer(router)
		defer server.Close()
		for _, tc := range []struct {
			kind, body, sig, want string
			runs                  int
		}{
			{"authentic", body, sig, "200 " + asked + "\n" + body, 1},
			{"unsigned", body, "", rejected, 0},
			{"forged", strings.Replace(body, `"rating":1`, `"rating":5`, 1), sig, rejected, 0},
			{"malformed signature", body, "sha256=" + sig, rejected, 0},
		} {
			runs = 0
			r := newRequest(t, server.URL+"/guuru", tc.body)
			if tc.sig != "" {
				r.Header.Set("X-Guuru-Hmac-Sha256", tc.sig)
			}
			if got := do(t, r); got != tc.want || runs != tc.runs {
				t.Errorf("%s, %s: got %q after %d runs of the handler, want %q after %d", name, tc.kind, got, runs, tc.want, tc.runs)
			}
		}
	}
}

// The README warns of this: gin runs the next handler after a rejection.
func TestGinWrapHRunsNextHandler(t *testing.T) {
	runs := 0
	handler := func(c *gin.Context) { runs++ }
	rc := newReceiver(t)
	g := gin.New()
	g.POST("/guuru", gin.WrapH(rc.Handler(http.NotFoundHandler())), handler)
	g.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/guuru", strings.NewReader("forged")))
	if runs != 1 {
		t.Errorf("got %d runs of the handler for a forged request, want 1", runs)
	}
}
