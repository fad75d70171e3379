package devnet

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"time"
)

// authKey describes an auth key that the devnet has issued. The key itself is
// not kept: it is looked up by its hash.
type authKey struct {
	Identity      identity  `json:"identity"`
	Reusable      bool      `json:"reusable"`
	Ephemeral     bool      `json:"ephemeral,omitempty"`
	NeedsApproval bool      `json:"needs_approval,omitempty"`
	Shared        bool      `json:"shared,omitempty"`
	Expires       time.Time `json:"expires,omitzero"`
	Refused       bool      `json:"refused,omitempty"`
	Used          bool      `json:"used,omitempty"`
}

// refusal returns why the key cannot be used now, or "". The texts begin like those of
// the real service, and do not contain the key.
func (k *authKey) refusal(now time.Time) string {
	switch {
	case k == nil:
		return "invalid key: unknown auth key"
	case k.Refused:
		return "invalid key: auth key was revoked"
	case !k.Expires.IsZero() && !now.Before(k.Expires):
		return "invalid key: auth key has expired"
	case k.Used && !k.Reusable:
		return "invalid key: auth key was already used"
	}
	return ""
}

// newAuthKeySecret returns a new key in the real service's form.
func newAuthKeySecret() string {
	return "tskey-auth-k" + randomBase62(11) + "CNTRL-" + randomBase62(32)
}

func hashAuthKey(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// randomBase62 returns n digits, each drawn without bias: bytes that would favor the
// first digits are rejected.
func randomBase62(n int) string {
	out := make([]byte, 0, n)
	buf := make([]byte, 2*n)
	for len(out) < n {
		rand.Read(buf) // never fails since Go 1.24
		for _, b := range buf {
			if b < 62*4 && len(out) < n {
				out = append(out, base62[b%62])
			}
		}
	}
	return string(out)
}
