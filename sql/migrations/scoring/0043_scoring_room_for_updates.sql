-- A day rewrites each member row twice, and makes it longer. At 50 many a second one found its page full, and had to be
-- entered into the indexes again. Rows that are there already get the room as they move.
alter table scoring.members set (fillfactor = 40);
