package tailnode

import (
	"maps"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
	"tailscale.com/tailcfg"
)

// appendIdentity appends an identity as JSON, without reflection, which would cost more
// than the whole lookup.
func appendIdentity(b []byte, id identity) []byte {
	b = appendString(append(b, `{"node_id":`...), id.NodeID)
	b = appendString(append(b, `,"node":`...), id.Node)
	b = strconv.AppendInt(append(b, `,"user_id":`...), id.UserID, 10)
	b = appendString(append(b, `,"login":`...), id.Login)
	b = appendString(append(b, `,"display_name":`...), id.DisplayName)
	b = appendStrings(append(b, `,"tags":`...), id.Tags)
	b = strconv.AppendBool(append(b, `,"shared":`...), id.Shared)
	b = strconv.AppendBool(append(b, `,"expired":`...), id.Expired)
	b = strconv.AppendInt(append(b, `,"key_expiry":`...), id.KeyExpiry, 10)
	b = append(b, `,"addresses":[`...)
	for i, prefix := range id.Addresses {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(prefix.Addr().AppendTo(append(b, '"')), '"')
	}
	b = append(b, `],"capabilities":{`...)
	for i, name := range capabilityNames(id.Capabilities) {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, string(name)), ':', '[')
		for i, value := range id.Capabilities[name] {
			if i > 0 {
				b = append(b, ',')
			}
			// JSON, as the control server sent it, in a string: a value that Python cannot
			// decode leaves the rest of the answer valid.
			b = appendString(b, string(value))
		}
		b = append(b, ']')
	}
	return append(b, '}', '}')
}

// capabilityNames returns the names in order, so that equal identities have equal JSON.
func capabilityNames(caps tailcfg.PeerCapMap) []tailcfg.PeerCapability {
	if len(caps) == 0 {
		return nil
	}
	return slices.Sorted(maps.Keys(caps))
}

func appendString(b []byte, s string) []byte {
	// An error means invalid UTF-8, which AppendQuote has replaced with U+FFFD.
	quoted, err := jsontext.AppendQuote(b, s)
	if err != nil && len(quoted) == len(b) {
		return append(b, '"', '"')
	}
	return quoted
}

func appendStrings(b []byte, list []string) []byte {
	b = append(b, '[')
	for i, s := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, s)
	}
	return append(b, ']')
}
