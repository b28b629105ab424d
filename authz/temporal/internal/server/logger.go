package server

import (
	"go.temporal.io/server/common/log"
	"go.temporal.io/server/common/log/tag"
)

// refusalsLogger logs the authorizer's refusals at level debug. The server
// would log each as an error with a stack trace, so that anybody without a key
// could fill its log. They are counted in the metrics, and the caller is told.
type refusalsLogger struct{ log.Logger }

// authorizationError is the server's message for an authorizer's error.
const authorizationError = "Authorization error"

func (l refusalsLogger) Error(msg string, tags ...tag.Tag) {
	if msg == authorizationError {
		l.Debug(msg, tags...)
		return
	}
	l.Logger.Error(msg, tags...)
}

// With implements log.WithLogger, so that tags do not undo the rule.
func (l refusalsLogger) With(tags ...tag.Tag) log.Logger {
	return refusalsLogger{log.With(l.Logger, tags...)}
}

// Skip implements log.SkipLogger.
func (l refusalsLogger) Skip(extraSkip int) log.Logger {
	if s, ok := l.Logger.(log.SkipLogger); ok {
		return refusalsLogger{s.Skip(extraSkip)}
	}
	return l
}
