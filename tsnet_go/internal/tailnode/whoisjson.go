package main

import (
	"maps"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
	"tailscale.com/tailcfg"
)

// appendPeer writes the JSON by hand: with reflection it would cost more than
// the whole look-up.
func appendPeer(b []byte, p peer) []byte {
	b = appendString(append(b, `{"node_id":`...), p.NodeID)
	b = appendString(append(b, `,"node":`...), p.Node)
	b = strconv.AppendInt(append(b, `,"user_id":`...), p.UserID, 10)
	b = appendString(append(b, `,"login":`...), p.Login)
	b = appendString(append(b, `,"display_name":`...), p.DisplayName)
	b = appendStrings(append(b, `,"tags":`...), p.Tags)
	b = strconv.AppendBool(append(b, `,"shared":`...), p.Shared)
	b = strconv.AppendBool(append(b, `,"expired":`...), p.Expired)
	b = append(b, `,"addresses":[`...)
	for i, prefix := range p.Addresses {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(prefix.Addr().AppendTo(append(b, '"')), '"')
	}
	b = append(b, `],"capabilities":{`...)
	for i, name := range capabilityNames(p.Capabilities) {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, string(name)), ':', '[')
		for i, value := range p.Capabilities[name] {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(b, value...) // JSON, as the control server sent it
		}
		b = append(b, ']')
	}
	return append(b, '}', '}')
}

// capabilityNames are in order, so that one peer has one answer.
func capabilityNames(caps tailcfg.PeerCapMap) []tailcfg.PeerCapability {
	if len(caps) == 0 {
		return nil
	}
	return slices.Sorted(maps.Keys(caps))
}

func appendString(b []byte, s string) []byte {
	// An error means invalid UTF-8, which AppendQuote has replaced by U+FFFD.
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
