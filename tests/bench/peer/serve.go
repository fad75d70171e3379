package main

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
	"tailscale.com/client/local"
)

const (
	tokenLife = 20 * time.Minute
	backdate  = 5 * time.Second
)

// claims are those of tailbone's tokens for a person.
type claims struct {
	Issuer      string `json:"iss"`
	Subject     string `json:"sub"`
	IssuedAt    int64  `json:"iat"`
	NotBefore   int64  `json:"nbf"`
	Expires     int64  `json:"exp"`
	ID          string `json:"jti"`
	User        string `json:"user"`
	DisplayName string `json:"display_name"`
	Node        string `json:"node"`
	NodeID      string `json:"node_id"`
}

type answer struct {
	Token     string `json:"token"`
	ExpiresAt int64  `json:"expires_at"`
}

// issuer is the baseline: a straightforward Go server, without a log.
type issuer struct {
	client *local.Client
	key    *rsa.PrivateKey
	header string
}

// serve runs the baseline until the process ends.
func serve(cfg joinConfig) error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	header, err := json.Marshal(map[string]string{"alg": "RS256", "kid": "baseline-1", "typ": "JWT"})
	if err != nil {
		return err
	}
	node, err := join(cfg)
	if err != nil {
		return err
	}
	client, err := node.LocalClient()
	if err != nil {
		return err
	}
	listener, err := node.Listen("tcp", ":80")
	if err != nil {
		return err
	}
	handler := &issuer{client: client, key: key, header: base64.RawURLEncoding.EncodeToString(header)}
	mux := http.NewServeMux()
	mux.Handle("POST /issue", handler)
	if err := say(map[string]float64{"signature_us": signatureUS(key)}); err != nil {
		return err
	}
	return http.Serve(listener, mux)
}

// signatureUS is the processor time of a bare signature, in µs: the best of some
// batches.
func signatureUS(key *rsa.PrivateKey) float64 {
	const batches, times = 10, 20
	digest := sha256.Sum256([]byte("bench"))
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	best := time.Hour
	for range batches {
		began := threadTime()
		for range times {
			// An error here would also fail every token, and be reported there.
			_, _ = rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, digest[:])
		}
		best = min(best, threadTime()-began)
	}
	return float64(best.Microseconds()) / times
}

// threadTime returns the processor time of this thread so far.
func threadTime() time.Duration {
	var used unix.Rusage
	if unix.Getrusage(unix.RUSAGE_THREAD, &used) != nil {
		return 0
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

func (i *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	who, err := i.client.WhoIs(r.Context(), r.RemoteAddr)
	if err != nil {
		http.Error(w, "unknown caller", http.StatusForbidden)
		return
	}
	now := time.Now()
	said := claims{
		Issuer:      "tailbone",
		Subject:     "user:" + strconv.FormatInt(int64(who.UserProfile.ID), 10),
		IssuedAt:    now.Add(-backdate).Unix(),
		NotBefore:   now.Add(-backdate).Unix(),
		Expires:     now.Add(tokenLife).Unix(),
		ID:          tokenID(),
		User:        who.UserProfile.LoginName,
		DisplayName: who.UserProfile.DisplayName,
		Node:        who.Node.Name,
		NodeID:      string(who.Node.StableID),
	}
	token, err := i.sign(said)
	if err != nil {
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(answer{Token: token, ExpiresAt: said.Expires}) // the caller has disconnected
}

// sign makes a JWS in compact form (RFC 7515), RS256.
func (i *issuer) sign(said claims) (string, error) {
	payload, err := json.Marshal(said)
	if err != nil {
		return "", err
	}
	input := i.header + "." + base64.RawURLEncoding.EncodeToString(payload)
	digest := sha256.Sum256([]byte(input))
	signature, err := rsa.SignPKCS1v15(rand.Reader, i.key, crypto.SHA256, digest[:])
	if err != nil {
		return "", err
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}

func tokenID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // crypto/rand.Read never fails: it ends the process first
	return hex.EncodeToString(b[:])
}
