package mail

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/internal/pg"
)

// keepMail keeps the message and forgets all but the newest.
func keepMail(ctx context.Context, q pg.Querier, m Message, at time.Time, newest int) error {
	_, err := q.Exec(ctx, `
		insert into outbox (message_id, at, from_name, from_email, to_name, to_email, subject, text_part, html_part)
		values (@id, @at, @from_name, @from_email, @to_name, @to_email, @subject, @text, @html)
		on conflict (message_id) do nothing`,
		pgx.NamedArgs{"id": m.ID, "at": at, "from_name": m.From.Name, "from_email": m.From.Email, "to_name": m.To.Name,
			"to_email": m.To.Email, "subject": m.Subject, "text": m.Text, "html": m.HTML})
	if err != nil {
		return fmt.Errorf("keeping a mail: %w", err)
	}
	_, err = q.Exec(ctx, `
		delete from outbox
		where id < (
		    select min(id)
		    from (
		        select id
		        from outbox
		        order by id desc
		        limit $1) newest)`, newest)
	if err != nil {
		return fmt.Errorf("forgetting old mails: %w", err)
	}
	return nil
}

const keptColumns = `id, message_id, at, from_name, from_email, to_name, to_email, subject`

func (k *Kept) fields() []any {
	return []any{&k.ID, &k.Message.ID, &k.At, &k.From.Name, &k.From.Email, &k.To.Name, &k.To.Email, &k.Subject}
}

func keptMailList(ctx context.Context, q pg.Querier) ([]Kept, error) {
	rows, err := q.Query(ctx, `
		select `+keptColumns+`
		from outbox
		order by id desc`)
	if err != nil {
		return nil, fmt.Errorf("reading mails: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Kept, error) {
		var k Kept
		err := row.Scan(k.fields()...)
		k.At = k.At.UTC()
		return k, err
	})
	if err != nil {
		return nil, fmt.Errorf("reading mails: %w", err)
	}
	return list, nil
}

func keptMail(ctx context.Context, q pg.Querier, id int64) (Kept, error) {
	var k Kept
	err := q.QueryRow(ctx, `
		select `+keptColumns+`, text_part, html_part
		from outbox
		where id = $1`, id).Scan(append(k.fields(), &k.Text, &k.HTML)...)
	if errors.Is(err, pgx.ErrNoRows) {
		return Kept{}, sallyport.NotFound.Errorf("there is no such mail")
	}
	if err != nil {
		return Kept{}, fmt.Errorf("reading a mail: %w", err)
	}
	k.At = k.At.UTC()
	return k, nil
}
