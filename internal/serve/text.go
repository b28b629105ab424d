package serve

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/sallyport-iam/sallyport"
)

// maxText bounds every text of a request. The longest honest one is a bundle
// of certificates as base64. What a field may hold beyond that is the domain's.
const maxText = 64 << 10

// checkText refuses a request with text in it, anywhere, that is no text:
// PostgreSQL takes no NUL, terminals and logs no control characters.
func checkText(req any) error {
	m, ok := req.(proto.Message)
	if !ok {
		return nil
	}
	return checkFields("", m.ProtoReflect())
}

func checkFields(prefix string, m protoreflect.Message) (err error) {
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		path := prefix + string(field.Name())
		switch {
		case field.IsMap():
			value.Map().Range(func(key protoreflect.MapKey, v protoreflect.Value) bool {
				entry := fmt.Sprintf("%s[%.80q]", path, key.String())
				if err = checkValue(path, field.MapKey(), key.Value()); err == nil {
					err = checkValue(entry, field.MapValue(), v)
				}
				return err == nil
			})
		case field.IsList():
			for i := 0; i < value.List().Len() && err == nil; i++ {
				err = checkValue(fmt.Sprintf("%s[%d]", path, i), field, value.List().Get(i))
			}
		default:
			err = checkValue(path, field, value)
		}
		return err == nil
	})
	return err
}

func checkValue(path string, field protoreflect.FieldDescriptor, value protoreflect.Value) error {
	switch field.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return checkFields(path+".", value.Message())
	case protoreflect.StringKind:
		text := value.String()
		switch {
		case len(text) > maxText:
			return sallyport.InvalidField(path, "has %d bytes; at most %d are possible", len(text), maxText)
		case !utf8.ValidString(text):
			return sallyport.InvalidField(path, "is not valid UTF-8")
		case strings.ContainsFunc(text, isControl):
			return sallyport.InvalidField(path, "has control characters; leave them out")
		}
	}
	return nil
}

// isControl is true for what no text has; lines and tabs are text.
func isControl(r rune) bool {
	return unicode.IsControl(r) && r != '\n' && r != '\r' && r != '\t'
}
