-- Events that wait to be published to NATS, and the publisher's last error.
select
    w.waiting,
    w.oldest,
    clock_timestamp() - w.oldest as waits_for,
    p.last_published_at,
    p.last_error,
    p.last_error_at
from kintell.event_publisher as p
cross join lateral (
    select count(*) as waiting, min(e.created_at) as oldest
    from kintell.event_outbox as e
    where e.published_at is null
) as w;
