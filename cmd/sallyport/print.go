package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// show prints an answer of the API: as JSON, or as people tells it.
func (s *session) show(m proto.Message, people func() error) error {
	if !s.json {
		return people()
	}
	text, err := marshal(m)
	if err != nil {
		return err
	}
	return s.indented(text)
}

// indented prints JSON over several lines.
func (s *session) indented(text []byte) error {
	var b bytes.Buffer
	if err := json.Indent(&b, text, "", "  "); err != nil {
		return fmt.Errorf("writing JSON: %w", err)
	}
	b.WriteByte('\n')
	_, err := s.stdout.Write(b.Bytes())
	return err
}

// marshal is the message as the HTTP API writes it, on one line. protojson's
// own spaces differ from build to build.
func marshal(m proto.Message) ([]byte, error) {
	text, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("writing JSON: %w", err)
	}
	var b bytes.Buffer
	if err := json.Compact(&b, text); err != nil {
		return nil, fmt.Errorf("writing JSON: %w", err)
	}
	return b.Bytes(), nil
}

// table prints rows under a heading, or says on stderr that there are none.
func (s *session) table(none string, heading []string, rows [][]string) error {
	if len(rows) == 0 {
		s.note("%s", none)
		return nil
	}
	return align(s.stdout, append([][]string{heading}, rows...))
}

// fields prints name and value on a line each; those without a value are left out.
func (s *session) fields(pairs ...[2]string) error {
	var rows [][]string
	for _, p := range pairs {
		if p[1] != "" {
			rows = append(rows, []string{p[0] + ":", p[1]})
		}
	}
	return align(s.stdout, rows)
}

func align(w io.Writer, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			row[i] = oneLine(cell)
			if cell == "" {
				row[i] = "-"
			}
		}
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	return t.Flush()
}

// note tells people something that programs need not read.
func (s *session) note(format string, args ...any) {
	fmt.Fprintln(s.stderr, oneLine(fmt.Sprintf(format, args...)))
}

// oneLine replaces what could move a terminal's cursor or change its colours:
// names are chosen by others.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, text)
}

// moment is a time in UTC, "" for none.
func moment(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().UTC().Format(time.RFC3339)
}
